//go:build !linux

package image

// unmountBelow has nothing to do: images are only built, and so mounts only made, on Linux.
func unmountBelow(string) error { return nil }
