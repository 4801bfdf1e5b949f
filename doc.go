// Package gondolin runs untrusted code in a Linux micro-VM and gives the
// program that started it control, in Go, over the only two things the VM can
// touch: the network and the files.
//
// [Start] boots a VM from a [Config]. [VM.Command] and [VM.Shell] run programs
// in it in the shape of os/exec. What the guest may reach is said by
// [policy.Network], whose zero value is nothing at all; what files it sees, by
// values of [vfs.FS]. Secrets are placeholders inside the guest: the host puts
// the real value in on the wire to the one host that may have it.
//
// A VM lives in this process and dies with it, however it ends.
package gondolin

import (
	_ "gondolin/policy" // named in the package comment
	_ "gondolin/vfs"
)
