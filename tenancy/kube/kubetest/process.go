package kubetest

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

// process is one of the two programs, which may be started again and again with
// the same arguments. Its output is appended to dir/<name>.log.
type process struct {
	name, dir string
	argv      []string
	cmd       *exec.Cmd
	// done is closed when the running one has ended.
	done chan struct{}
}

func (p *process) logFile() string { return filepath.Join(p.dir, p.name+".log") }

// start runs the program, unless it runs. On Linux it ends with this process,
// however that one ends.
func (p *process) start() error {
	if p.running() {
		return nil
	}
	out, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { // ends with the process
		_ = cmd.Wait()
		close(done)
	}()
	return nil
}

func (p *process) running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() {
	if p.running() {
		_ = p.cmd.Process.Kill() // an error means that it has ended
		<-p.done
	}
}

// signal reports an error if the process does not run.
func (p *process) signal(s os.Signal) error {
	if !p.running() {
		return fmt.Errorf("signal %s: it does not run", p.name)
	}
	return p.cmd.Process.Signal(s)
}

func (p *process) pause() error  { return p.signal(syscall.SIGSTOP) }
func (p *process) resume() error { return p.signal(syscall.SIGCONT) }

// wait calls ready until it returns nil, and gives up when the process ends or
// ctx does.
func (p *process) wait(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, err, p.tail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, errors.Join(ctx.Err(), err), p.tail(20))
		case <-tick.C:
		}
	}
}

// tail returns the last n lines of the output.
func (p *process) tail(n int) string {
	raw, err := os.ReadFile(p.logFile())
	if err != nil {
		return fmt.Sprintf("(no output: %v)", err)
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
