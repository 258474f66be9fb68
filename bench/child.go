package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"
)

// childWord is the first argument of a process that is driven by another one.
const childWord = "child"

// service is the name of a child's methods in net/rpc.
const service = "Child"

// callLimit bounds whatever is asked of a child.
const callLimit = 4 * time.Minute

// child is a process that this one started: a server or clients.
type child struct {
	cmd *exec.Cmd
	rpc *rpc.Client
	pid int
}

// pipes are a process's standard input and output as one connection.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// start runs this program as a child of the given role. It ends with stop, with
// ctx, or when this process does, because its standard input ends then.
func start(ctx context.Context, role string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, childWord, role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return &child{cmd: cmd, rpc: rpc.NewClient(pipes{out, in}), pid: cmd.Process.Pid}, nil
}

// call runs a method of the child.
func (c *child) call(method string, args, reply any) error {
	call := c.rpc.Go(service+"."+method, args, reply, make(chan *rpc.Call, 1))
	limit := time.NewTimer(callLimit)
	defer limit.Stop()
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("%s: %w", method, call.Error)
		}
		return nil
	case <-limit.C:
		return fmt.Errorf("%s: no answer after %v", method, callLimit)
	}
}

// stop ends the child, after it has written its profile if it has one.
func (c *child) stop() {
	_ = c.call("Finish", struct{}{}, &struct{}{})
	_ = c.rpc.Close() // its standard input ends, and with it the process
	if err := c.cmd.Wait(); err != nil {
		_ = c.cmd.Process.Kill()
	}
}

// kill ends the child at once, as a crash would.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.rpc.Close()
	_ = c.cmd.Wait()
}

// cpu is the CPU time that the child uses during do.
func (c *child) cpu(do func() error) (time.Duration, error) {
	before, err := cpuTime(c.pid)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := cpuTime(c.pid)
	return after - before, err
}

// common is what every child can do.
type common struct {
	profile string
	file    *os.File
}

// Settle gives memory that is not in use back to the system. A stack is halved
// by a collection at most; an idle process has one every two minutes.
func (c *common) Settle(struct{}, *struct{}) error {
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	return nil
}

// Finish is the last call: it ends a profile.
func (c *common) Finish(struct{}, *struct{}) error {
	if c.file == nil {
		return nil
	}
	pprof.StopCPUProfile()
	heap, err := os.Create(c.profile + ".heap.pprof")
	if err != nil {
		return err
	}
	return errors.Join(c.file.Close(), pprof.WriteHeapProfile(heap), heap.Close())
}

// Profile starts a CPU profile that goes to path.cpu.pprof.
func (c *common) Profile(path string, _ *struct{}) (err error) {
	if path == "" || c.file != nil {
		return nil
	}
	c.profile = path
	if c.file, err = os.Create(path + ".cpu.pprof"); err != nil {
		return err
	}
	return pprof.StartCPUProfile(c.file)
}

// runChild serves the calls of the process that started this one until that
// ends.
func runChild(role string) error {
	server := rpc.NewServer()
	var err error
	switch role {
	case "server":
		err = server.RegisterName(service, &Server{})
	case "stock":
		err = server.RegisterName(service, &Stock{})
	case "clients":
		err = server.RegisterName(service, &Fleet{})
	default:
		err = fmt.Errorf("no child is called %q", role)
	}
	if err != nil {
		return err
	}
	server.ServeConn(pipes{os.Stdin, os.Stdout})
	return nil
}
