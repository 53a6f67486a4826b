package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"net/http/pprof"
)

// serveDebug serves Go profiles at MEDILAB_DEBUG_ADDR, if set, until ctx ends. They need no token, so
// it must be a loopback address, also when it is listened at.
func (s *server) serveDebug(ctx context.Context) error {
	if s.settings.debugAddr == "" {
		return nil
	}
	listener, err := net.Listen("tcp", s.settings.debugAddr)
	if err != nil {
		return fmt.Errorf("listen for profiles: %w; see MEDILAB_DEBUG_ADDR", err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return errors.Join(errors.New("MEDILAB_DEBUG_ADDR must be a loopback address: profiles need no token"), listener.Close())
	}
	mux := nethttp.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	go func() {
		if err := serveAll(ctx, []listening{{listener, mux}}); err != nil {
			s.logger.Error("serving profiles ended", "error", err)
		}
	}()
	return nil
}
