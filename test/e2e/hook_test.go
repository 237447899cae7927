package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdHook sends a signed message: [!] hook SECRET ID AGE BODY. Its answer is the output.
func cmdHook(ts *testscript.TestScript, neg bool, args []string) {
	secret, id, body := args[0], args[1], []byte(args[3])
	age, err := time.ParseDuration(args[2])
	ts.Check(err)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	ts.Check(err)
	stamp := strconv.FormatInt(time.Now().Add(-age).Unix(), 10)
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	req, err := http.NewRequest(http.MethodPost, ts.Getenv("DAYFLY_SERVER")+"/v1/hooks/generic", bytes.NewReader(body))
	ts.Check(err)
	for name, value := range map[string]string{
		"Content-Type": "application/json", "webhook-id": id, "webhook-timestamp": stamp,
		"webhook-signature": "v1,d3Jvbmc= v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)),
	} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d\n%s", resp.StatusCode, answer)
	if (resp.StatusCode >= 400) != neg {
		ts.Fatalf("the hook was answered %d: %s", resp.StatusCode, answer)
	}
}
