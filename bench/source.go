package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/metrics"

	"k8s.io/client-go/tools/clientcmd"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/kube"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// follow reads the mesh from a source and goes on following it.
func (s *Server) follow(started *Started) error {
	options := object.Options{AllowLoopback: true}
	sink := &sink{publisher: s.publisher}
	before := live()
	began := now()
	if s.config.Kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", s.config.Kubeconfig)
		if err != nil {
			return fmt.Errorf("read the kubeconfig: %w", err)
		}
		source, err := kube.New(kube.Config{REST: config, Options: options, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		go func() { _ = source.Run(context.Background(), clusterSink{sink}) }() // ends with the process
	} else {
		source, err := file.New(file.Config{Dir: s.config.Dir, Options: options, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		go func() { _ = source.Run(context.Background(), fileSink{sink}) }() // ends with the process
	}
	<-s.publisher.Ready()
	started.Load = now().since(began)
	started.Objects = sink.objects
	if after := live(); after > before {
		started.Held = after - before
	}
	return nil
}

// live is what the heap holds after a collection.
func live() uint64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// sink hands a source's events over.
type sink struct {
	publisher *snapshot.Publisher
	objects   int // written before Synced, read after
	synced    bool
}

func (s *sink) Apply(events []tenancy.Event) { s.publisher.Apply(events) }

func (s *sink) Synced() {
	s.synced = true
	s.publisher.Synced()
}

func (s *sink) report(objects int, errs []*object.Error) {
	if !s.synced {
		s.objects = objects
	}
	for _, e := range errs {
		panic("the benchmark's own objects are not honoured: " + e.Error())
	}
}

type fileSink struct{ *sink }

func (s fileSink) Report(r file.Report) { s.report(r.Objects, r.Errors) }

type clusterSink struct{ *sink }

func (s clusterSink) Report(r kube.Report) { s.report(r.Objects, r.Errors) }
