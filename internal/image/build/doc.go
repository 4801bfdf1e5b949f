// Package build makes the default guest image: Debian's packages for the host's own release, from the package sources
// the host is configured with, Debian's cloud kernel, and an EROFS root file system. Nothing of Gondolin is inside: the
// guest agent comes with each start.
//
// It uses the distribution's own tools, mmdebstrap, apt, dpkg and mkfs.erofs, so that signatures are checked by
// the code everybody relies on.
package build
