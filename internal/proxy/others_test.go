package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/proxy"
	"github.com/dayfly-dev/dayfly/internal/proxy/proxytest"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// The engine between clients and servers that others have written.

const patience = 20 * time.Second

// engine starts an engine in front of one instance of a service, and gives its public and
// its internal address.
func engine(t *testing.T, protocol dayfly.Protocol, upstream string) (public, internal string) {
	t.Helper()
	table := route.New(route.Options{Domain: "localhost"})
	table.SetDeployment("d1", []route.Endpoint{{Instance: "i1", Address: upstream}})
	addr := netip.MustParseAddr("127.11.12.13")
	err := table.SetEnvironment(route.Environment{
		ID: "e1", Name: "shop-main", Project: "shop",
		Services: []route.Service{{Name: "web", Protocol: protocol, Routes: []dayfly.PathRoute{{Path: "/"}}, Targets: []route.Target{{Deployment: "d1", Version: "v1", Weight: 1}}}},
		Hosts:    []route.Host{{Name: "shop-main.localhost"}}, Addresses: []route.Address{{Addr: addr, Service: "web"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := proxy.New(proxy.Config{Table: table, Pages: proxytest.Pages{}})
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inside, _, err := proxy.ListenInternal("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 2)
	go func() { served <- p.ServePublic(context.Background(), outside) }()
	go func() { served <- p.ServeInternal(context.Background(), inside) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	})
	_, port, _ := net.SplitHostPort(inside.Addr().String())
	return outside.Addr().String(), net.JoinHostPort(addr.String(), port)
}

func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("the program %s is not installed", name)
	}
	return path
}

func TestCurlSpeaksThroughTheEngine(t *testing.T) {
	curl := program(t, "curl")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(r.Method + " " + r.URL.RequestURI() + " as " + r.Header.Get("X-Dayfly-Env")))
		if n > 0 {
			_, _ = w.Write([]byte(" with a body"))
		}
		w.Header().Set("X-Sum", "42")
	}))
	defer server.Close()
	public, _ := engine(t, dayfly.ProtocolHTTP, server.Listener.Addr().String())
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"HTTP/1.1":            {nil, []string{"HTTP/1.1 200", "GET /p?q as shop-main"}},
		"HTTP/1.0":            {[]string{"--http1.0"}, []string{" 200", "GET /p?q as shop-main"}},
		"HTTP/2 in the clear": {[]string{"--http2-prior-knowledge"}, []string{"HTTP/2 200", "GET /p?q as shop-main", "x-sum: 42"}},
		"a large body":        {[]string{"-T", large}, []string{" 200", "PUT /p?q as shop-main with a body"}},
		"Expect":              {[]string{"-T", large, "-H", "Expect: 100-continue"}, []string{" 200", "with a body"}},
		"HTTP/2 with a body":  {[]string{"--http2-prior-knowledge", "-T", large}, []string{"HTTP/2 200", "with a body"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"-sSi", "--max-time", "20", "-H", "Host: shop-main.localhost"}, tc.args...)
			out, err := exec.Command(curl, append(args, "http://"+public+"/p?q")...).CombinedOutput()
			if err != nil {
				t.Fatalf("curl: %v: %s", err, out)
			}
			for _, want := range tc.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is missing in:\n%s", want, out)
				}
			}
		})
	}
}

func TestGRPCWorksInsideAndFromOutside(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	state := health.NewServer()
	healthpb.RegisterHealthServer(server, state)
	go func() {
		if err := server.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	defer server.Stop()
	public, internal := engine(t, dayfly.ProtocolH2C, l.Addr().String())
	for name, target := range map[string]string{"inside": internal, "outside": public} {
		t.Run(name, func(t *testing.T) {
			c, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("shop-main.localhost"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			client := healthpb.NewHealthClient(c)
			state.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
			if r, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
				t.Fatalf("a call gave %v, %v", r, err)
			}
			if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "nobody"}); err == nil || !strings.Contains(err.Error(), "unknown service") {
				t.Errorf("an error came as %v", err)
			}
			stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
				if r, err := stream.Recv(); err != nil || r.Status != want {
					t.Fatalf("the stream gave %v, %v, not %v", r, err, want)
				}
				state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
			}
		})
	}
}

func TestWebSocketsCarryMessagesBothWays(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, append([]byte("you said "), message...)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	public, _ := engine(t, dayfly.ProtocolHTTP, server.Listener.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://"+public+"/ws", &websocket.DialOptions{Host: "shop-main.localhost"})
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hello", strings.Repeat("long ", 5000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != "you said "+word {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("it did not close well: %v", err)
	}
}

func TestAServerInPythonAnswersThroughTheEngine(t *testing.T) {
	python, curl := program(t, "python3"), program(t, "curl")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page.txt"), []byte("served by python\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	cmd := exec.Command(python, "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	public, _ := engine(t, dayfly.ProtocolHTTP, address)
	out, err := exec.Command(curl, "-sS", "--retry", "50", "--retry-all-errors", "--retry-delay", "0", "--max-time", "20", "--fail",
		"-H", "Host: shop-main.localhost", "http://"+public+"/page.txt").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "served by python") {
		t.Errorf("%v: %s", err, out)
	}
}
