// Package program is what the programs in Go share: asked by one line of JSON, they answer in lines of JSON.
package program

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Request is all that can be asked; each operation uses its part.
type Request struct {
	Topic       string
	Group       string
	Mode        string
	Instance    *string
	Compression string
	Idempotent  bool
	Partition   int32
	Partitions  int32
	From        int64
	Count       int
	PerSecond   float64 `json:"per_second"`
	Times       []int64
	Records     []Record
	Steps       []Step
}

// Record is one record to be written.
type Record struct {
	Partition int32
	Key       *string
	Value     *string
	Headers   [][]*string
	Timestamp *int64
}

// Step is one step of `admin`.
type Step struct {
	Do         string
	Topic      string
	Partition  int32
	Partitions int32
	Total      int32
	Before     int64
	Configs    map[string]string
	Removed    []string
}

// Line is one line of an answer.
type Line map[string]any

// Client is what a client's program does.
type Client interface {
	Produce(Request) error
	Read(Request) error
	Seek(Request) error
	Follow(Request) error
	Stream(Request) error
	Group(Request) error
	Committed(Request) error
	Admin([]Step) error
}

var (
	lock sync.Mutex
	over atomic.Bool
	// Ended is closed when the input ends.
	Ended = make(chan struct{})
)

// Out prints one line.
func Out(line Line) {
	lock.Lock()
	defer lock.Unlock()
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}

// Over says whether the input has ended.
func Over() bool { return over.Load() }

// Bytes are what hexadecimal text says; nil for null.
func Bytes(text *string) []byte {
	if text == nil {
		return nil
	}
	bytes, err := hex.DecodeString(*text)
	if err != nil {
		panic(err)
	}
	if bytes == nil {
		bytes = []byte{}
	}
	return bytes
}

// Text is the hexadecimal text of bytes; null for nil.
func Text(bytes []byte) any {
	if bytes == nil {
		return nil
	}
	return hex.EncodeToString(bytes)
}

// Shown is a record as it is printed.
func Shown(partition int32, offset, timestamp int64, key, value []byte, headers [][2]any) Line {
	if headers == nil {
		headers = [][2]any{}
	}
	return Line{
		"partition": partition, "offset": offset, "timestamp": timestamp,
		"key": Text(key), "value": Text(value), "headers": headers,
	}
}

// Paced calls with 0, 1, … so many times a second until the input ends.
func Paced(perSecond float64, call func(number int)) {
	started := time.Now()
	for number := 0; !Over(); number++ {
		call(number)
		due := time.Duration(float64(number+1) / perSecond * float64(time.Second))
		time.Sleep(due - time.Since(started))
	}
}

// Steps runs the steps of `admin`, one after another.
func Steps(steps []Step, run func(Step) (Line, error)) error {
	for _, step := range steps {
		line, err := run(step)
		if line == nil {
			line = Line{}
		}
		line["did"] = step.Do
		if err != nil {
			line["refused"] = err.Error()
		}
		Out(line)
	}
	return nil
}

// Main performs the operation that the arguments name.
func Main(open func(bootstrap string) Client) {
	input := bufio.NewReader(os.Stdin)
	text, err := input.ReadBytes('\n')
	if err != nil {
		panic(err)
	}
	var request Request
	if err := json.Unmarshal(text, &request); err != nil {
		panic(err)
	}
	go func() {
		for {
			if _, err := input.ReadByte(); err != nil {
				over.Store(true)
				close(Ended)
				return
			}
		}
	}()
	if err := perform(open(os.Args[2]), os.Args[1], request); err != nil {
		Out(Line{"error": err.Error()})
		os.Exit(1)
	}
}

func perform(client Client, operation string, request Request) error {
	switch operation {
	case "produce":
		return client.Produce(request)
	case "read":
		return client.Read(request)
	case "seek":
		return client.Seek(request)
	case "follow":
		return client.Follow(request)
	case "stream":
		return client.Stream(request)
	case "group":
		return client.Group(request)
	case "committed":
		return client.Committed(request)
	case "admin":
		return client.Admin(request.Steps)
	}
	return fmt.Errorf("unknown: %s", operation)
}
