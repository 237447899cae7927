package client_test

import (
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func TestAClientRegistersAndRoutes(t *testing.T) {
	control, c := serve(t)
	want := dayfly.RegistrationRequest{Service: "web", ID: "a:1", Version: "v/1 %", Address: ":80", Environment: "temp", Project: "shop", TTL: dayfly.Duration(1500 * time.Millisecond)}
	i, err := c.Register(t.Context(), want)
	if err != nil || i.ID != "a:1" || i.TTL != want.TTL {
		t.Fatalf("registered %+v, %v", i, err)
	}
	want.Sender = "127.0.0.1"
	if got, _ := control.Registered("web", "a:1"); got != want {
		t.Errorf("asked for %+v, want %+v", got, want)
	}
	if i, err := c.Instance(t.Context(), "web", "a:1"); err != nil || i.Version != "v/1 %" {
		t.Errorf("shown %+v, %v", i, err)
	}
	if err := c.Deregister(t.Context(), "web", "a:1", time.Second); err != nil {
		t.Error(err)
	}
	if err := c.Deregister(t.Context(), "web", "a:1", 0); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("ended twice: %v", err)
	}
	if _, err := c.Instances(t.Context(), "nobody"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("instances of nobody: %v", err)
	}

	r := dayfly.Route{Name: "docs", Host: "docs.localhost", Path: "/a b", To: "http://x", Strip: true}
	if made, err := c.PutRoute(t.Context(), r); err != nil || made != r {
		t.Errorf("made %+v, %v", made, err)
	}
	if list, err := c.Routes(t.Context()); err != nil || len(list) != 1 || list[0] != r {
		t.Errorf("listed %+v, %v", list, err)
	}
	if err := c.DeleteRoute(t.Context(), "docs"); err != nil {
		t.Error(err)
	}
}
