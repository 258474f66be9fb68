package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a process has between SIGTERM and SIGKILL.
const stopGrace = 5 * time.Second

// process is a running program whose output goes to a file.
type process struct {
	cmd     *exec.Cmd
	name    string
	logFile string
	// done is closed when the process has ended and err is set.
	done chan struct{}
	err  error
}

// startProcess runs argv in dir with its output appended to dir/<name>.log. The
// process is asked to end when ctx does. It must not be called from a locked OS
// thread that ends before the process: on Linux the child would be killed.
func startProcess(ctx context.Context, name, dir string, argv []string) (*process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	logFile := filepath.Join(dir, name+".log")
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{cmd: cmd, name: name, logFile: logFile, done: make(chan struct{})}
	go func() { // ends with the process
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// running reports whether the process has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks the process to end, and kills it after stopGrace. It returns when
// the process is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		p.kill()
	}
}

// kill ends the process at once, and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

// tail returns the last n lines of the process's output.
func (p *process) tail(n int) string {
	raw, err := os.ReadFile(p.logFile)
	if err != nil {
		return fmt.Sprintf("(no output: %v)", err)
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// pollEvery is how often a process is asked whether it is ready.
const pollEvery = 20 * time.Millisecond

// wait calls ready until it returns nil. It ends with an error when the process
// ends or ctx does; the error has ready's last answer and the process's last words.
func (p *process) wait(ctx context.Context, what string, ready func(context.Context) error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended while waiting until it %s: %w\n%s", p.name, what, errors.Join(p.err, err), p.tail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting until it %s: %w (%w)\n%s", p.name, what, ctx.Err(), err, p.tail(20))
		case <-tick.C:
		}
	}
}
