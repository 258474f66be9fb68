//go:build !linux

package kubetest

import "syscall"

// childAttributes keeps the terminal's Ctrl-C from a child: whoever started it
// stops it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
