//go:build !linux

package mesh

import "syscall"

// childAttributes keeps the terminal's Ctrl-C from a child: whoever started it
// stops it in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
