// Program nsmguest is an enclave's workload that asks its Nitro Secure Module for everything there is to ask, by the
// library that enclaves written in Go use, and tells on the console how it went. Its last line is "done".
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"time"

	"github.com/hf/nsm"
	"github.com/hf/nsm/request"
	"github.com/hf/nsm/response"
)

var session *nsm.Session

func main() {
	var err error
	if session, err = nsm.OpenDefaultSession(); err != nil {
		fmt.Println("nsm: open:", err)
		return
	}
	module := ask(&request.DescribeNSM{}).DescribeNSM
	fmt.Println("nsm: module", module.ModuleID, module.Digest, module.MaxPCRs, "PCRs, locked", module.LockedPCRs)

	fmt.Printf("nsm: PCR0 %x\n", ask(&request.DescribePCR{Index: 0}).DescribePCR.Data)
	fmt.Printf("nsm: PCR16 %x\n", ask(&request.ExtendPCR{Index: 16, Data: []byte("hello")}).ExtendPCR.Data)
	ask(&request.LockPCR{Index: 16})
	ask(&request.LockPCRs{Range: 18})
	for _, refused := range []request.Request{
		&request.ExtendPCR{Index: 0, Data: []byte("x")}, &request.ExtendPCR{Index: 17, Data: []byte("x")},
		&request.LockPCR{Index: 16}, &request.DescribePCR{Index: 32}, &request.LockPCRs{Range: 33},
		&request.Attestation{PublicKey: make([]byte, 1025)}, &request.Attestation{Nonce: make([]byte, 4096)},
	} {
		answer, err := session.Send(refused)
		fmt.Printf("nsm: refused %T %s %v\n", refused, answer.Error, err)
	}
	a, b := ask(&request.GetRandom{}).GetRandom.Random, ask(&request.GetRandom{}).GetRandom.Random
	fmt.Println("nsm: random", len(a), len(b), "differ", !bytes.Equal(a, b))
	pool := make([]byte, 32)
	_, err = rand.Read(pool)
	name, _ := os.ReadFile("/sys/class/misc/hw_random/rng_current")
	fmt.Println("nsm: hwrng", string(bytes.TrimSpace(name)), err)

	big := ask(&request.Attestation{
		Nonce: bytes.Repeat([]byte{1}, 1025), UserData: bytes.Repeat([]byte{2}, 1024), PublicKey: bytes.Repeat([]byte{3}, 1024),
	})
	fmt.Println("nsm: document", base64.StdEncoding.EncodeToString(big.Attestation.Document))

	const times = 200
	start := time.Now()
	for range times {
		ask(&request.DescribePCR{Index: 1})
	}
	fmt.Println("nsm: DescribePCR takes", time.Since(start)/times)
	fmt.Println("nsm: done")
	for { // the console of an enclave that has ended cannot be read
		time.Sleep(time.Hour)
	}
}

// ask sends a request that is granted.
func ask(r request.Request) response.Response {
	answer, err := session.Send(r)
	if err != nil || answer.Error != "" {
		fmt.Printf("nsm: %T: %s %v\n", r, answer.Error, err)
		os.Exit(1)
	}
	return answer
}
