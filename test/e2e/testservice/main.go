// Command testservice is the service that the end-to-end scripts run, so that they
// need not compile one. Its first argument says what it is:
//
//	http            answers on PORT, see below
//	tcp             echoes lines on PORT, each behind its DAYFLY_SERVICE
//	tick            prints a line every 50 ms
//	job CODE WORDS  prints WORDS and exits with CODE
//	listen ADDRESS  listens there, where $PORT stands for it, and says so; "none" = nowhere
//	stubborn        as http, and does not end when it is told to
//	family          as http, with a child that does not end when it is told to
//	daemon          as http, with a child of a session of its own that has no variables and no parent
//
// http: / tells who answers (with the content of the file SERVICE/VERSION or VERSION), /env prints the
// environment, /call?url=U calls U with the headers that services hand on (with only= one of them), /slow takes
// a second, /exit ends the process, /headers shows what arrived, /fail fails, /id shows the
// user, /write writes a private file and /read?file=F reads one.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	mode := "http"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch mode {
	case "http":
		err = serve(ctx)
	case "tcp":
		err = echo(ctx)
	case "tick":
		for i := 0; ctx.Err() == nil; i++ {
			fmt.Println("tick", i)
			time.Sleep(50 * time.Millisecond)
		}
	case "listen":
		err = listen(ctx, os.Args[2])
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("stubborn: pid", os.Getpid())
		err = serve(context.Background())
	case "family":
		var child *os.Process
		child, err = os.StartProcess("/proc/self/exe", []string{os.Args[0], "deaf"}, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr}})
		if err == nil {
			fmt.Println("child: pid", child.Pid)
			err = serve(ctx)
		}
	case "daemon":
		err = daemon("between")
		if err == nil {
			err = serve(ctx)
		}
	case "between": // its end leaves the next one without a parent
		err = daemon("deaf-daemon")
	case "deaf-daemon":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "job":
		code, _ := strconv.Atoi(os.Args[2])
		fmt.Println(strings.Join(os.Args[3:], " "))
		os.Exit(code)
	default:
		err = fmt.Errorf("no such mode: %s", mode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// daemon starts this binary in a session of its own.
func daemon(mode string) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	child, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], mode}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	switch {
	case err != nil:
	case mode == "between":
		_, err = child.Wait()
	default:
		fmt.Println("daemon: pid", child.Pid)
	}
	return err
}

func serve(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(os.Getenv("DAYFLY_SERVICE"), "VERSION"))
	if err != nil {
		version, _ = os.ReadFile("VERSION") // none is none
	}
	who := fmt.Sprintf("service=%s env=%s version=%s pid=%d\n",
		os.Getenv("DAYFLY_SERVICE"), os.Getenv("DAYFLY_ENV"), strings.TrimSpace(string(version)), os.Getpid())
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, who) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		env := os.Environ()
		slices.Sort(env)
		io.WriteString(w, strings.Join(env, "\n")+"\n")
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Host: %s\n", r.Host)
		r.Header.Write(w)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		io.WriteString(w, who)
	})
	mux.HandleFunc("/id", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "uid=%d gid=%d\n", os.Getuid(), os.Getgid())
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		file := filepath.Join(os.Getenv("DAYFLY_DIR"), "private")
		answer(w, "wrote "+file+"\n", os.WriteFile(file, []byte("secret\n"), 0o600))
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("file"))
		answer(w, string(b), err)
	})
	mux.HandleFunc("/fail", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "it fails", http.StatusInternalServerError)
	})
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("exit was asked for")
		os.Exit(3)
	})
	mux.HandleFunc("/call", func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, os.ExpandEnv(r.FormValue("url")), nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, h := range []string{"X-Dayfly-Env", "Baggage", "Traceparent"} {
			if v := r.Header.Get(h); v != "" && r.FormValue("bare") == "" && (r.FormValue("only") == "" || strings.EqualFold(r.FormValue("only"), h)) {
				req.Header.Set(h, v)
			}
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	})
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: mux}
	go func() {
		<-ctx.Done()
		quiet, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(quiet)
	}()
	fmt.Print("listening: ", who)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func answer(w http.ResponseWriter, text string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	io.WriteString(w, text)
}

func listen(ctx context.Context, address string) error {
	if address != "none" {
		l, err := net.Listen("tcp", os.ExpandEnv(address))
		if err != nil {
			return err
		}
		defer l.Close()
		fmt.Println("listening: port", l.Addr().(*net.TCPAddr).Port)
	}
	<-ctx.Done()
	return nil
}

func echo(ctx context.Context) error {
	l, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer c.Close()
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				fmt.Fprintf(c, "%s: %s\n", os.Getenv("DAYFLY_SERVICE"), lines.Text())
			}
		}()
	}
}
