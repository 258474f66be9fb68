package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Instant is a reading of the machine's monotonic clock in nanoseconds, which
// all processes share.
type Instant int64

func now() Instant {
	var ts unix.Timespec
	// It cannot fail for this clock.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return Instant(ts.Nano())
}

func (i Instant) since(start Instant) time.Duration { return time.Duration(i - start) }

// cpuTime is what a process has used of all cores since it began, user and
// kernel, as the scheduler counted it.
func cpuTime(pid int) (time.Duration, error) {
	// The kernel's number of the CPU clock of another process: linux, clock_getcpuclockid(3).
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// residentBytes are the memory of a process that is in RAM now, and the most
// that ever was.
func residentBytes(pid int) (current, peak int64, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	read := func(key string) int64 {
		_, rest, _ := strings.Cut(string(raw), key+":")
		line, _, _ := strings.Cut(rest, "\n")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(line), " kB"), 10, 64)
		return kb << 10
	}
	return read("VmRSS"), read("VmHWM"), nil
}
