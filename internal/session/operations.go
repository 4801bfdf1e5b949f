package session

import "time"

// Paths of the operations.
const (
	InfoPath   = "/info"   // Empty -> Info
	PausePath  = "/pause"  // Empty -> Empty
	ResumePath = "/resume" // Empty -> Empty
	StopPath   = "/stop"   // Empty -> Empty; the answer comes before the end
)

// Empty is a message that says all by being sent.
type Empty struct{}

// States of a session.
const (
	Running      = "running"
	Paused       = "paused"
	Unresponsive = "not answering" // by its client's judgement
)

// Info describes a session.
type Info struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`
	Label   string    `json:"label,omitempty"` // what the VM is for
	PID     int       `json:"pid,omitempty"`   // of the process that owns it
	State   string    `json:"state"`
	Started time.Time `json:"started,omitzero"`
	Image   string    `json:"image,omitempty"`
	Memory  int64     `json:"memory,omitempty"` // bytes
	CPUs    int       `json:"cpus,omitempty"`
}
