package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newMatrixCommand() *cobra.Command {
	var a askFlags
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show who may call whom, as a table or a drawing",
		Long: `Matrix judges every service account that Pods use against every service port, as
explain does for one call: all requests are allowed, some, or none, or the
caller's proxy does not know the service.`,
		Example: `  bailiwick matrix --config-dir deploy/demo --allow-loopback-endpoints
  bailiwick matrix --config-dir mesh --tenant acme -o svg > acme.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.matrix(cmd) },
	}
	a.add(cmd, "table", "json", "svg")
	return cmd
}

func (a *askFlags) matrix(cmd *cobra.Command) error {
	by, err := a.open(cmd.Context(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { _ = by.Close() }()
	m, err := by.Matrix(cmd.Context())
	if err != nil {
		return err
	}
	switch a.output {
	case "json":
		err = printJSON(cmd.OutOrStdout(), m)
	case "svg":
		err = m.SVG(cmd.OutOrStdout())
	default:
		err = m.Table(cmd.OutOrStdout())
	}
	if err != nil {
		return fmt.Errorf("print the matrix: %w", err)
	}
	return nil
}
