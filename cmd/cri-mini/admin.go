package main

import (
	"errors"
	"net/http"

	"github.com/cri-mini/cri-mini/admin"
)

// admin serves operators' commands. Closing it ends what they wait for: a pull keeps the layers that it has finished.
func (d *daemon) admin() (*http.Server, error) {
	listener, err := listen(d.c.adminSocket())
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: (&admin.Server{Images: d.images, Log: d.log}).Handler()}
	go func() {
		if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("serve operators", "obj", listener.Addr(), "err", err)
		}
	}()
	return s, nil
}
