// The smoke test of the shop: orders something as a customer would.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

func main() {
	address := os.Getenv("URL")
	if err := try(address); err != nil {
		fmt.Println("FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("passed: the shop at", address, "takes orders")
}

func try(address string) error {
	page, err := get(http.Get(address))
	if err != nil {
		return err
	}
	if !strings.Contains(page, "The dayfly shop") {
		return fmt.Errorf("%s shows no shop", address)
	}
	page, err = get(http.PostForm(address+"/order", url.Values{"product": {"Morning dew"}}))
	if err != nil {
		return err
	}
	if strings.Contains(page, "\n0 orders") {
		return fmt.Errorf("the order was not taken")
	}
	return nil
}

func get(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s: %s", resp.Request.URL, resp.Status, body)
	}
	return string(body), err
}
