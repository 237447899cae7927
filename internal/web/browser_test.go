package web_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly/internal/web"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shots keeps a picture of every page: go test ./internal/web -args -shots FOLDER.
var shots = flag.String("shots", "", "folder for pictures of the pages")

// testTimeout ends a test that hangs. No test waits for it.
const testTimeout = 3 * time.Minute

// startBrowser starts Chromium and gives a context to make tabs from.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("there is no chromium here: scripts/setup installs it as root on Debian")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("hide-scrollbars", true))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium as root demands it
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("chromium does not start: %v", err)
	}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("chromium does not end: %v", err)
		}
	})
	return ctx
}

// tab is a tab of the browser and what was wrong in it.
type tab struct {
	context.Context
	mu     sync.Mutex
	wrong  []string
	loaded []string
}

// open makes a tab that takes note of what goes wrong. The address of the page may have any status.
func open(t *testing.T, browser context.Context, address string) *tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	tab := &tab{Context: ctx}
	note := func(format string, args ...any) { tab.wrong = append(tab.wrong, fmt.Sprintf(format, args...)) }
	err := chromedp.Listen(ctx, func(event any) {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			if e.Entry.URL != address {
				note("console: %s %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
			}
		case *runtime.EventConsoleAPICalled:
			note("console: %s", e.Type)
		case *runtime.EventExceptionThrown:
			note("exception: %s", e.ExceptionDetails.Text)
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "data:") {
				tab.loaded = append(tab.loaded, e.Request.URL)
			}
		case *network.EventLoadingFailed:
			note("a request failed: %s", e.ErrorText)
		case *page.EventJavascriptDialogOpening:
			note("a dialog: %s", e.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	call(t, tab, log.Enable, cdp.Empty{})
	call(t, tab, runtime.Enable, cdp.Empty{})
	call(t, tab, network.Enable, network.EnableParams{})
	call(t, tab, page.Enable, page.EnableParams{})
	return tab
}

// call gives the tab a command of the protocol.
func call[P, R any](t *testing.T, tab *tab, command cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(tab, command, params); err != nil {
		t.Fatal(err)
	}
}

func run[T any](t *testing.T, tab *tab, action chromedp.Action[T]) T {
	t.Helper()
	result, err := chromedp.Run(tab, action)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// hardToRead lists the texts whose contrast is below 4.5, with what is behind them.
const hardToRead = `(() => {
	const pixel = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
	const over = (colours) => { // paints them one over the other
		pixel.clearRect(0, 0, 1, 1);
		for (const c of colours) { pixel.fillStyle = c; pixel.fillRect(0, 0, 1, 1) }
		return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
	};
	const light = (rgb) => rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const found = [];
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	let seen = 0;
	while (texts.nextNode()) {
		const node = texts.currentNode, element = node.parentElement;
		if (!node.data.trim()) continue;
		seen++;
		const behind = [];
		for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
		const a = light(over(behind)), b = light(over([...behind, getComputedStyle(element).color]));
		const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (contrast < 4.5) found.push(contrast.toFixed(1) + ' ' + node.data.trim());
	}
	return seen ? found : ['no text at all'];
})()`

// tooWide lists what sticks out of the window or of its own box.
const tooWide = `[...document.querySelectorAll('body, body *')].filter(e =>
	e.getBoundingClientRect().right > innerWidth + .5 || e.getBoundingClientRect().left < -.5 || e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
	.map(e => e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 60))`

const brightness = `(() => {
	const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
	return (r + g + b) / 3;
})()`

// look is how a page is shown.
type look struct {
	scheme string
	width  int64
}

func TestPagesAreFineInABrowser(t *testing.T) {
	browser := startBrowser(t)
	pages := web.NewPages()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, ok := meetings[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.Error(w, "nobody should ask for this", http.StatusTeapot)
			return
		}
		m.problem.RetryAfter *= 1000 // the page stays while it is looked at
		pages.Write(w, r, m.problem)
	}))
	defer server.Close()

	looks := []look{{"light", 1280}, {"dark", 360}}
	if *shots != "" {
		looks = append(looks, look{"light", 360}, look{"dark", 1280})
	}
	for name, m := range meetings {
		t.Run(name, func(t *testing.T) {
			address := server.URL + "/" + name
			tab := open(t, browser, address)
			for _, look := range looks {
				call(t, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}})
				call(t, tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: look.width, Height: 720, DeviceScaleFactor: 1, Mobile: look.width < 500})
				run(t, tab, chromedp.Navigate(address))
				if title := run(t, tab, chromedp.Title()); title != m.problem.Title {
					t.Errorf("the title is %q", title)
				}
				if light := run(t, tab, chromedp.Evaluate[float64](brightness)); (light < 128) != (look.scheme == "dark") {
					t.Errorf("%s: the background has the brightness %.0f", look.scheme, light)
				}
				if faint := run(t, tab, chromedp.Evaluate[[]string](hardToRead)); len(faint) > 0 {
					t.Errorf("%s: hard to read: %q", look.scheme, faint)
				}
				if wide := run(t, tab, chromedp.Evaluate[[]string](tooWide)); len(wide) > 0 {
					t.Errorf("sticks out at %d pixels: %q", look.width, wide)
				}
				keepPicture(t, tab, fmt.Sprintf("%s-%s-%d.png", name, look.scheme, look.width))
			}
			tab.mu.Lock()
			defer tab.mu.Unlock()
			if len(tab.wrong) > 0 {
				t.Errorf("went wrong: %q", tab.wrong)
			}
			for _, url := range tab.loaded {
				if url != address {
					t.Errorf("the page loaded %s", url)
				}
			}
		})
	}
}

func TestAWaitingPageGoesOnWithoutScripts(t *testing.T) {
	browser := startBrowser(t)
	pages := web.NewPages()
	var mu sync.Mutex
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/checkout" {
			http.NotFound(w, r)
			return
		}
		if asked++; asked < 3 {
			pages.Write(w, r, meetings["starting"].problem)
			return
		}
		fmt.Fprint(w, "<!doctype html><title>The shop</title><p id=there>Welcome")
	}))
	defer server.Close()

	tab := open(t, browser, server.URL+"/checkout")
	call(t, tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	run(t, tab, chromedp.Navigate(server.URL+"/checkout"))
	run(t, tab, chromedp.WaitReady(chromedp.CSS("#there")))
	mu.Lock()
	defer mu.Unlock()
	if asked < 3 {
		t.Errorf("the page was asked for %d times", asked)
	}
}

// keepPicture keeps what the tab shows, if pictures are wanted.
func keepPicture(t *testing.T, tab *tab, name string) {
	t.Helper()
	if *shots == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(*shots, name), run(t, tab, chromedp.CaptureScreenshot()), 0o644); err != nil {
		t.Fatal(err)
	}
}
