package machine

const (
	// quotedLines is how many lines of each output an error shows: a kernel panic's
	// last screen is longer, but its first cause is rarely there; the log has all of it.
	quotedLines = 12

	// quotedLine is the longest line shown, in bytes; a terminal is rarely wider.
	quotedLine = 240
)
