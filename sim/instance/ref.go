package instance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nesim/nesim/sim/errcode"
)

// Ref refers to one enclave: by its ID, by its name, or by a word that may be either. Exactly one field is set. An ID
// is never taken for a name nor a name for an ID, whatever enclaves are called.
type Ref struct {
	ID   string
	Name string
	Word string // refused if it is one enclave's ID and another's name
}

func (r Ref) String() string { return r.ID + r.Name + r.Word }

// Matches reports whether the reference fits an enclave.
func (r Ref) Matches(id, name string) bool {
	switch {
	case r.ID != "":
		return id == r.ID
	case r.Name != "":
		return name == r.Name
	}
	return r.Word != "" && (id == r.Word || name == r.Word)
}

// find looks up an enclave among the running ones, then if wanted among the ended ones, newest first.
func (i *Instance) find(r Ref, ended bool) (*enclave, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	lists := [][]*enclave{i.enclaves}
	if ended {
		lists = append(lists, i.ended)
	}
	for _, list := range lists {
		if found, err := pick(r, list); found != nil || err != nil {
			return found, err
		}
	}
	var names []string
	for _, e := range i.enclaves {
		names = append(names, e.name)
	}
	if len(names) == 0 {
		return nil, noEnclave(r, "none is running")
	}
	return nil, noEnclave(r, "running are "+strings.Join(names, ", "))
}

// pick returns the newest enclave in the list that the reference fits, or nil.
func pick(r Ref, list []*enclave) (found *enclave, err error) {
	for _, e := range slices.Backward(list) {
		switch {
		case !r.Matches(e.id, e.name):
		case found == nil:
			found = e
		case r.Word != "" && (found.id == r.Word) != (e.id == r.Word):
			return nil, errcode.New(errcode.InvalidArgument,
				"%q is one enclave's ID and another's name: use --enclave-id or --enclave-name", r.Word)
		}
	}
	return found, nil
}

// noEnclave is the error for an ID or a name that no running enclave has; nitro-cli has a code for each.
func noEnclave(r Ref, running string) error {
	code := errcode.EnclaveNaming
	if r.ID != "" || strings.Contains(r.Word, "-enc") {
		code = errcode.Socket
	}
	return errcode.Wrap(code, fmt.Errorf("no enclave %q: %s", r, running))
}
