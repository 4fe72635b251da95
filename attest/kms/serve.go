package kms

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// How long clients may take, and how many there may be on each listener.
const (
	headerTime  = 10 * time.Second
	requestTime = 30 * time.Second
	idleTime    = 2 * time.Minute
	endTime     = 5 * time.Second // for requests that are under way at the end
	maxConns    = 256
)

// Serve answers on listeners, which it closes, until ctx ends or one of them fails. Where
// ctx ends there is no error.
func (s *Service) Serve(ctx context.Context, listeners ...net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       requestTime,
		WriteTimeout:      requestTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // of clients that break off
	}
	ends := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ends <- server.Serve(netutil.LimitListener(l, maxConns)) }()
	}
	var failed error
	running := len(listeners)
	select {
	case <-ctx.Done():
	case failed = <-ends:
		running--
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if server.Shutdown(end) != nil {
		server.Close()
	}
	for range running {
		<-ends
	}
	if errors.Is(failed, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return failed
}
