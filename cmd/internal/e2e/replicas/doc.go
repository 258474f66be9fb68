// Package replicas holds tests of several servers over one API server.
package replicas
