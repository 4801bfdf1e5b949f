package netstack

// OpenFlows returns how many connections count as open.
func (s *Stack) OpenFlows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows
}
