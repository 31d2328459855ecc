// Operations of the scenarios with franz-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"compat/program"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type franz struct{ seeds []string }

func main() {
	program.Main(func(bootstrap string) program.Client { return franz{strings.Split(bootstrap, ",")} })
}

func (f franz) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.seeds...), kgo.MetadataMaxAge(time.Second), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1),
		// A node may die as soon as it has taken a connection.
		kgo.AlwaysRetryEOF(),
	}, more...)...)
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func (f franz) Produce(asked program.Request) error {
	settings := []kgo.Opt{kgo.ProducerBatchCompression(codecs[asked.Compression]), kgo.ProducerLinger(20 * time.Millisecond)}
	if !asked.Idempotent {
		settings = append(settings, kgo.DisableIdempotentWrite())
	}
	client, err := f.client(settings...)
	if err != nil {
		return err
	}
	defer client.Close()
	records := make([]*kgo.Record, len(asked.Records))
	for at, record := range asked.Records {
		records[at] = &kgo.Record{
			Topic: asked.Topic, Partition: record.Partition, Key: program.Bytes(record.Key), Value: program.Bytes(record.Value)}
		for _, header := range record.Headers {
			records[at].Headers = append(records[at].Headers, kgo.RecordHeader{Key: *header[0], Value: program.Bytes(header[1])})
		}
		if record.Timestamp != nil {
			records[at].Timestamp = time.UnixMilli(*record.Timestamp)
		}
	}
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		return err
	}
	for _, record := range records {
		program.Out(program.Line{"partition": record.Partition, "offset": record.Offset})
	}
	return nil
}

func shown(record *kgo.Record) program.Line {
	var headers [][2]any
	for _, header := range record.Headers {
		headers = append(headers, [2]any{header.Key, program.Text(header.Value)})
	}
	return program.Shown(
		record.Partition, record.Offset, record.Timestamp.UnixMilli(), record.Key, record.Value, headers)
}

func (f franz) from(topic string, partition int32, offset int64) (*kgo.Client, error) {
	return f.client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(offset)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
}

func (f franz) Read(asked program.Request) error {
	client, err := f.from(asked.Topic, asked.Partition, asked.From)
	if err != nil {
		return err
	}
	defer client.Close()
	limit, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for missing := asked.Count; missing > 0; {
		fetched := client.PollRecords(limit, missing)
		if limit.Err() != nil {
			return fmt.Errorf("%d records are missing", missing)
		}
		fetched.EachRecord(func(record *kgo.Record) {
			program.Out(shown(record))
			missing--
		})
	}
	return nil
}

func (f franz) Seek(asked program.Request) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	for _, moment := range asked.Times {
		found, err := kadm.NewClient(client).ListOffsetsAfterMilli(context.Background(), moment, asked.Topic)
		if err != nil {
			return err
		}
		one, there := found.Lookup(asked.Topic, asked.Partition)
		if !there || one.Err != nil {
			return fmt.Errorf("no answer: %v", one.Err)
		}
		// It gives the end, with timestamp -1, where there is no such record.
		if one.Timestamp < 0 {
			one.Offset = -1
		}
		program.Out(program.Line{"offset": one.Offset})
	}
	return nil
}

// until polls until the input ends.
func until(client *kgo.Client, each func(kgo.Fetches)) {
	for !program.Over() {
		limit, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		each(client.PollFetches(limit))
		cancel()
	}
}

// Follow takes the partition anew where the topic is another one: franz-go leaves that to its users.
func (f franz) Follow(asked program.Request) error {
	client, err := f.from(asked.Topic, asked.Partition, 0)
	if err != nil {
		return err
	}
	defer client.Close()
	until(client, func(fetched kgo.Fetches) {
		fetched.EachRecord(func(record *kgo.Record) { program.Out(shown(record)) })
		fetched.EachError(func(topic string, partition int32, err error) {
			if errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition) {
				client.PurgeTopicsFromConsuming(topic)
				start := kgo.NewOffset().AtStart()
				client.AddConsumePartitions(map[string]map[int32]kgo.Offset{asked.Topic: {asked.Partition: start}})
			}
		})
	})
	return nil
}

func (f franz) Stream(asked program.Request) error {
	client, err := f.client(kgo.ProducerLinger(5*time.Millisecond), kgo.RecordDeliveryTimeout(5*time.Minute))
	if err != nil {
		return err
	}
	defer client.Close()
	program.Paced(asked.PerSecond, func(number int) {
		record := &kgo.Record{
			Topic: asked.Topic, Partition: int32(number) % asked.Partitions, Value: []byte(fmt.Sprint(number))}
		client.Produce(context.Background(), record, func(told *kgo.Record, err error) {
			if err != nil {
				program.Out(program.Line{"number": number, "failed": err.Error()})
			} else {
				program.Out(program.Line{"number": number, "partition": told.Partition, "offset": told.Offset})
			}
		})
	})
	return client.Flush(context.Background())
}

func (f franz) Group(asked program.Request) error {
	var gate sync.Mutex
	told := func(name string) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, places map[string][]int32) {
			gate.Lock()
			defer gate.Unlock()
			program.Out(program.Line{name: append([]int32{}, places[asked.Topic]...)})
		}
	}
	settings := []kgo.Opt{
		kgo.ConsumerGroup(asked.Group), kgo.ConsumeTopics(asked.Topic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10 * time.Second),
		kgo.HeartbeatInterval(time.Second), kgo.Balancers(kgo.RangeBalancer()),
		kgo.OnPartitionsAssigned(told("assigned")), kgo.OnPartitionsRevoked(told("revoked")), kgo.OnPartitionsLost(told("revoked")),
	}
	if asked.Mode == "cooperative" {
		settings = append(settings, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if asked.Instance != nil {
		settings = append(settings, kgo.InstanceID(*asked.Instance))
	}
	client, err := f.client(settings...)
	if err != nil {
		return err
	}
	until(client, func(fetched kgo.Fetches) {
		done := map[string]int64{}
		var records []*kgo.Record
		fetched.EachRecord(func(record *kgo.Record) {
			program.Out(program.Line{"partition": record.Partition, "offset": record.Offset, "value": program.Text(record.Value)})
			done[fmt.Sprint(record.Partition)] = record.Offset + 1
			records = append(records, record)
		})
		if len(records) > 0 {
			if err := client.CommitRecords(context.Background(), records...); err != nil {
				program.Out(program.Line{"uncommitted": err.Error()})
			} else {
				program.Out(program.Line{"committed": done})
			}
		}
		client.AllowRebalance()
	})
	client.CloseAllowingRebalance()
	program.Out(program.Line{"closed": true})
	return nil
}

func (f franz) Committed(asked program.Request) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	found, err := kadm.NewClient(client).FetchOffsets(context.Background(), asked.Group)
	if err != nil {
		return err
	}
	for at := int32(0); at < asked.Partitions; at++ {
		one, there := found.Lookup(asked.Topic, at)
		if !there {
			one.At = -1
		}
		program.Out(program.Line{"offset": one.At})
	}
	return nil
}

func (f franz) Admin(steps []program.Step) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	return program.Steps(steps, func(step program.Step) (program.Line, error) { return run(admin, step) })
}

func run(admin *kadm.Client, step program.Step) (program.Line, error) {
	background := context.Background()
	switch step.Do {
	case "create":
		configs := map[string]*string{}
		for name, value := range step.Configs {
			configs[name] = &value
		}
		_, err := admin.CreateTopic(background, step.Partitions, 1, configs, step.Topic)
		return nil, err
	case "describe":
		// It answers from what it was told less than MetadataMinAge ago.
		time.Sleep(200 * time.Millisecond)
		found, err := admin.ListTopics(background, step.Topic)
		if err != nil {
			return nil, err
		}
		return program.Line{"partitions": len(found[step.Topic].Partitions)}, found[step.Topic].Err
	case "configs":
		found, err := admin.DescribeTopicConfigs(background, step.Topic)
		if err != nil {
			return nil, err
		}
		told := map[string]string{}
		for _, one := range found[0].Configs {
			told[one.Key] = one.MaybeValue()
		}
		return program.Line{"configs": told}, found[0].Err
	case "alter":
		return nil, alter(admin, step)
	case "partitions":
		made, err := admin.UpdatePartitions(background, int(step.Total), step.Topic)
		if err != nil {
			return nil, err
		}
		return nil, made.Error()
	case "trim":
		wanted := kadm.Offsets{}
		wanted.Add(kadm.Offset{Topic: step.Topic, Partition: step.Partition, At: step.Before})
		made, err := admin.DeleteRecords(background, wanted)
		if err != nil {
			return nil, err
		}
		one, _ := made.Lookup(step.Topic, step.Partition)
		return program.Line{"low": one.LowWatermark}, one.Err
	case "ends":
		first, err := admin.ListStartOffsets(background, step.Topic)
		if err != nil {
			return nil, err
		}
		end, err := admin.ListEndOffsets(background, step.Topic)
		if err != nil {
			return nil, err
		}
		low, _ := first.Lookup(step.Topic, step.Partition)
		high, _ := end.Lookup(step.Topic, step.Partition)
		return program.Line{"first": low.Offset, "end": high.Offset}, nil
	case "delete":
		_, err := admin.DeleteTopic(background, step.Topic)
		return nil, err
	case "cluster":
		found, err := admin.BrokerMetadata(background)
		return program.Line{"nodes": len(found.Brokers), "controller": found.Controller >= 0}, err
	}
	return nil, fmt.Errorf("unknown: %s", step.Do)
}

func alter(admin *kadm.Client, step program.Step) error {
	var changes []kadm.AlterConfig
	for name, value := range step.Configs {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
	}
	for _, name := range step.Removed {
		changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name})
	}
	made, err := admin.AlterTopicConfigs(context.Background(), changes, step.Topic)
	if err != nil {
		return err
	}
	return made[0].Err
}
