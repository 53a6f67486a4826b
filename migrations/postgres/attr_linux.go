package postgres

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// dieWithUs makes the kernel send a signal to the child when the thread that started it ends, which
// is why run keeps that thread for as long as the child lives.
func dieWithUs(cmd *exec.Cmd, signal syscall.Signal) { cmd.SysProcAttr.Pdeathsig = signal }

// lend lets the account reach folders whose parents it may not enter, and returns the names by which
// it reaches them.
//
// As root the data folder is often below a folder of mode 0700: a clone in /root, a temporary
// folder, our own DataDir with its keys. Postgres needs no way through the parents when it is handed
// its folders as open files: /proc/self/fd/N leads from the process straight to the folder, and
// Postgres works relative to its data folder once it is there. The alternatives are worse: a
// capability to bypass permissions would let SQL read every file of the machine and is missing in
// most containers, opening up the parents is not ours to do, and a folder elsewhere would part the
// database from its MEDILAB_DATA_DIR.
func (a account) lend(cmd *exec.Cmd, dirs ...string) (names []string, done func(), err error) {
	if a.cred == nil {
		return dirs, func() {}, nil
	}
	var files []*os.File
	done = func() {
		for _, f := range files {
			_ = f.Close() // opened for reading only: nothing can be lost
		}
	}
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			done()
			return nil, nil, err
		}
		files = append(files, f)
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		names = append(names, fmt.Sprintf("/proc/self/fd/%d", 2+len(cmd.ExtraFiles)))
	}
	return names, done, nil
}
