// Command nonewprivs prints its effective user id. Its file is setuid root in
// the image: under no_new_privs the kernel ignores that bit (execve(2)), so
// the printed id tells whether the runtime had set it.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Printf("Effective uid: %d\n", os.Geteuid()) }
