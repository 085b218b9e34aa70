// Command gen writes what the op table generates: the C header and the reference page.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/cri-mini/cri-mini/runtime/plan"
)

func main() {
	header := flag.String("header", "", "where to write the C header")
	doc := flag.String("doc", "", "where to write the reference page")
	flag.Parse()
	for path, text := range map[string]string{*header: plan.Header(), *doc: plan.Doc()} {
		if path == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
