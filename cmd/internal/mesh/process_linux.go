package mesh

import "syscall"

// childAttributes lets a child end with this process, and keeps the terminal's
// Ctrl-C from it: whoever started it stops it in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
