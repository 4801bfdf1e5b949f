package checkpoint

import "golang.org/x/sys/unix"

const seekData = unix.SEEK_DATA
