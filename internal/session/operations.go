package session

import "time"

// Paths of the operations.
const (
	InfoPath   = "/info"   // Empty -> Info
	PausePath  = "/pause"  // Empty -> Empty
	ResumePath = "/resume" // Empty -> Empty
	StopPath   = "/stop"   // Empty -> Empty; the answer comes before the end

	CheckpointPath = "/checkpoint" // Checkpoint -> Saved
	ForkPath       = "/fork"       // Fork -> Forked
)

// Empty is a message that says all by being sent.
type Empty struct{}

// Checkpoint asks for the VM to be saved.
type Checkpoint struct {
	Dir string `json:"dir"` // absolute; made
}

// Saved says that it was.
type Saved struct {
	Size     int64         `json:"size"`               // bytes on disk
	Pause    time.Duration `json:"pause_ns"`           // of its processors
	Held     time.Duration `json:"held_ns"`            // of its commands, their streams and its files
	Nameless int           `json:"nameless,omitempty"` // open files that have no name any more
}

// Fork asks for children of the VM. They are sessions of the same process.
type Fork struct {
	Count int `json:"count"`
}

// Forked names the children.
type Forked struct {
	IDs []string `json:"ids"`
}

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
