package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Runner runs one command with this standard input and returns its standard
// output. The error says what the command wrote to standard error.
type Runner func(ctx context.Context, stdin string, command ...string) (stdout string, err error)

// Exec runs commands on this machine, each behind prefix: none, or for example
// "ip netns exec NAME".
func Exec(prefix ...string) Runner {
	return func(ctx context.Context, stdin string, command ...string) (string, error) {
		full := append(append([]string(nil), prefix...), command...)
		cmd := exec.CommandContext(ctx, full[0], full[1:]...)
		var stdout, stderr bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s: %w: %s", strings.Join(full, " "), err, strings.TrimSpace(stderr.String()))
		}
		return stdout.String(), nil
	}
}

// Apply sets the rules through run, replacing what an earlier Apply set. It needs
// CAP_NET_ADMIN (and, for some variants of iptables, CAP_NET_RAW) in the Pod's
// network namespace.
func (r Rules) Apply(ctx context.Context, run Runner) error {
	for _, f := range r.Families() {
		current, err := f.list(ctx, run)
		if err != nil {
			return err
		}
		if _, err := run(ctx, r.restoreInput(f, current), f.command+"-restore", "-w", "--noflush"); err != nil {
			return fmt.Errorf("set the rules for %s: %w", f.Name, err)
		}
	}
	if r.IPv6 {
		if _, err := run(ctx, "", addressCommand("replace")...); err != nil {
			return fmt.Errorf("give the loopback interface the address ::6: %w", err)
		}
	}
	return nil
}

// Clean takes away what [Rules.Apply] set. Only the families matter; it goes on
// after an error and returns all of them.
func (r Rules) Clean(ctx context.Context, run Runner) error {
	var errs []error
	for _, f := range r.Families() {
		current, err := f.list(ctx, run)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		input := cleanInput(current)
		if input == "" {
			continue
		}
		if _, err := run(ctx, input, f.command+"-restore", "-w", "--noflush"); err != nil {
			errs = append(errs, fmt.Errorf("remove the rules for %s: %w", f.Name, err))
		}
	}
	if r.IPv6 {
		errs = append(errs, removeAddress(ctx, run))
	}
	return errors.Join(errs...)
}

func removeAddress(ctx context.Context, run Runner) error {
	present, err := run(ctx, "", "ip", "-6", "-o", "addr", "show", "dev", "lo", "to", "::6/128")
	if err != nil {
		return fmt.Errorf("look for the address ::6: %w", err)
	}
	if strings.TrimSpace(present) == "" {
		return nil
	}
	if _, err := run(ctx, "", addressCommand("del")...); err != nil {
		return fmt.Errorf("remove the address ::6 from the loopback interface: %w", err)
	}
	return nil
}

func (f Family) list(ctx context.Context, run Runner) (string, error) {
	current, err := run(ctx, "", f.command, "-w", "-t", "nat", "-S")
	if err == nil {
		return current, nil
	}
	advice := "CAP_NET_ADMIN is needed, in the network namespace of the Pod"
	if f.command == "ip6tables" {
		advice += "; --ipv6=false leaves IPv6 alone"
	}
	return "", fmt.Errorf("read the rules for %s (%s): %w", f.Name, advice, err)
}
