// Operations of the scenarios with sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	"compat/program"

	"github.com/IBM/sarama"
)

type client struct{ addresses []string }

func main() {
	sarama.Logger = log.New(os.Stderr, "", log.Ltime)
	program.Main(func(bootstrap string) program.Client { return client{strings.Split(bootstrap, ",")} })
}

func settings() *sarama.Config {
	settings := sarama.NewConfig()
	// The newest that it knows; its own default is an old one.
	settings.Version = sarama.MaxVersion
	settings.Metadata.AllowAutoTopicCreation = false
	settings.Metadata.RefreshFrequency = time.Second
	settings.Metadata.Retry.Max = 50
	settings.Producer.Return.Successes = true
	settings.Producer.Partitioner = sarama.NewManualPartitioner
	settings.Producer.RequiredAcks = sarama.WaitForAll
	settings.Producer.Retry.Max = 1000
	settings.Consumer.Offsets.Initial = sarama.OffsetOldest
	settings.Consumer.Offsets.AutoCommit.Enable = false
	settings.Admin.Retry.Max = 20
	return settings
}

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func idempotent(settings *sarama.Config) {
	settings.Producer.Idempotent = true
	settings.Net.MaxOpenRequests = 1
}

// encoded keeps null and empty apart.
func encoded(bytes []byte) sarama.Encoder {
	if bytes == nil {
		return nil
	}
	return sarama.ByteEncoder(bytes)
}

func (c client) Produce(asked program.Request) error {
	config := settings()
	config.Producer.Compression = codecs[asked.Compression]
	config.Producer.Flush.Frequency = 20 * time.Millisecond
	if asked.Idempotent {
		idempotent(config)
	}
	producer, err := sarama.NewSyncProducer(c.addresses, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	messages := make([]*sarama.ProducerMessage, len(asked.Records))
	for at, record := range asked.Records {
		message := &sarama.ProducerMessage{
			Topic: asked.Topic, Partition: record.Partition,
			Key: encoded(program.Bytes(record.Key)), Value: encoded(program.Bytes(record.Value))}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(*header[0]), Value: program.Bytes(header[1])})
		}
		if record.Timestamp != nil {
			message.Timestamp = time.UnixMilli(*record.Timestamp)
		}
		messages[at] = message
	}
	if err := producer.SendMessages(messages); err != nil {
		return err
	}
	for _, message := range messages {
		program.Out(program.Line{"partition": message.Partition, "offset": message.Offset})
	}
	return nil
}

func shown(message *sarama.ConsumerMessage) program.Line {
	var headers [][2]any
	for _, header := range message.Headers {
		headers = append(headers, [2]any{string(header.Key), program.Text(header.Value)})
	}
	return program.Shown(
		message.Partition, message.Offset, message.Timestamp.UnixMilli(), message.Key, message.Value, headers)
}

func (c client) Read(asked program.Request) error {
	consumer, err := sarama.NewConsumer(c.addresses, settings())
	if err != nil {
		return err
	}
	defer consumer.Close()
	source, err := consumer.ConsumePartition(asked.Topic, asked.Partition, asked.From)
	if err != nil {
		return err
	}
	defer source.Close()
	limit := time.After(time.Minute)
	for missing := asked.Count; missing > 0; missing-- {
		select {
		case message := <-source.Messages():
			program.Out(shown(message))
		case <-limit:
			return fmt.Errorf("%d records are missing", missing)
		}
	}
	return nil
}

// Seek repeats a lookup where the connection to the node that is asked was lost: sarama leaves that to its users.
func (c client) Seek(asked program.Request) error {
	connection, err := sarama.NewClient(c.addresses, settings())
	if err != nil {
		return err
	}
	defer connection.Close()
	for _, moment := range asked.Times {
		offset, err := connection.GetOffset(asked.Topic, asked.Partition, moment)
		for attempt := 0; err != nil && attempt < 20; attempt++ {
			time.Sleep(500 * time.Millisecond)
			offset, err = connection.GetOffset(asked.Topic, asked.Partition, moment)
		}
		if err != nil {
			return err
		}
		program.Out(program.Line{"offset": offset})
	}
	return nil
}

// Follow begins anew where sarama gives a partition up: it leaves that to its users.
func (c client) Follow(asked program.Request) error {
	config := settings()
	config.Consumer.Return.Errors = true
	consumer, err := sarama.NewConsumer(c.addresses, config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	for !program.Over() {
		source, err := consumer.ConsumePartition(asked.Topic, asked.Partition, sarama.OffsetOldest)
		if err != nil {
			log.Print(err)
			time.Sleep(200 * time.Millisecond)
			continue
		}
		follow(source)
		source.Close()
	}
	return nil
}

func follow(source sarama.PartitionConsumer) {
	for {
		select {
		case message, open := <-source.Messages():
			if !open {
				return
			}
			program.Out(shown(message))
		case err := <-source.Errors():
			log.Print(err)
			if errors.Is(err, sarama.ErrOffsetOutOfRange) {
				return
			}
		case <-program.Ended:
			return
		}
	}
}

func (c client) Stream(asked program.Request) error {
	config := settings()
	idempotent(config)
	config.Producer.Flush.Frequency = 5 * time.Millisecond
	config.Producer.Return.Errors = true
	producer, err := sarama.NewAsyncProducer(c.addresses, config)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	var open sync.WaitGroup
	go func() {
		for message := range producer.Successes() {
			open.Done()
			program.Out(program.Line{"number": message.Metadata, "partition": message.Partition, "offset": message.Offset})
		}
		close(done)
	}()
	go func() {
		for failed := range producer.Errors() {
			open.Done()
			program.Out(program.Line{"number": failed.Msg.Metadata, "failed": failed.Err.Error()})
		}
	}()
	program.Paced(asked.PerSecond, func(number int) {
		open.Add(1)
		producer.Input() <- &sarama.ProducerMessage{
			Topic: asked.Topic, Partition: int32(number) % asked.Partitions, Metadata: number,
			Value: sarama.StringEncoder(fmt.Sprint(number))}
	})
	// As it closes, it gives up what it would send again.
	open.Wait()
	producer.AsyncClose()
	<-done
	return nil
}

type member struct{ topic string }

func (m member) Setup(session sarama.ConsumerGroupSession) error {
	program.Out(program.Line{"assigned": append([]int32{}, session.Claims()[m.topic]...)})
	return nil
}

func (m member) Cleanup(session sarama.ConsumerGroupSession) error {
	program.Out(program.Line{"revoked": append([]int32{}, session.Claims()[m.topic]...)})
	return nil
}

func (m member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			program.Out(program.Line{"partition": message.Partition, "offset": message.Offset, "value": program.Text(message.Value)})
			session.MarkMessage(message, "")
		case <-session.Context().Done():
			return nil
		}
	}
}

func (c client) Group(asked program.Request) error {
	config := settings()
	config.Consumer.Group.Session.Timeout = 10 * time.Second
	config.Consumer.Group.Heartbeat.Interval = time.Second
	config.Consumer.Offsets.AutoCommit.Enable = true
	config.Consumer.Offsets.AutoCommit.Interval = 500 * time.Millisecond
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	config.Consumer.Return.Errors = true
	if asked.Instance != nil {
		config.Consumer.Group.InstanceId = *asked.Instance
	}
	group, err := sarama.NewConsumerGroup(c.addresses, asked.Group, config)
	if err != nil {
		return err
	}
	go func() {
		for err := range group.Errors() {
			log.Print(err)
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-program.Ended
		cancel()
	}()
	for !program.Over() {
		if err := group.Consume(ctx, []string{asked.Topic}, member{asked.Topic}); err != nil {
			log.Print(err)
			time.Sleep(200 * time.Millisecond)
		}
	}
	err = group.Close()
	program.Out(program.Line{"closed": true})
	return err
}

func (c client) Committed(asked program.Request) error {
	admin, err := sarama.NewClusterAdmin(c.addresses, settings())
	if err != nil {
		return err
	}
	defer admin.Close()
	found, err := admin.ListConsumerGroupOffsets(asked.Group, nil)
	if err != nil {
		return err
	}
	for at := int32(0); at < asked.Partitions; at++ {
		offset := int64(-1)
		if one := found.GetBlock(asked.Topic, at); one != nil {
			offset = one.Offset
		}
		program.Out(program.Line{"offset": offset})
	}
	return nil
}

func (c client) Admin(steps []program.Step) error {
	connection, err := sarama.NewClient(c.addresses, settings())
	if err != nil {
		return err
	}
	defer connection.Close()
	admin, err := sarama.NewClusterAdminFromClient(connection)
	if err != nil {
		return err
	}
	return program.Steps(steps, func(step program.Step) (program.Line, error) { return run(connection, admin, step) })
}

func run(connection sarama.Client, admin sarama.ClusterAdmin, step program.Step) (program.Line, error) {
	switch step.Do {
	case "create":
		wanted := &sarama.TopicDetail{NumPartitions: step.Partitions, ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
		for name, value := range step.Configs {
			wanted.ConfigEntries[name] = &value
		}
		return nil, admin.CreateTopic(step.Topic, wanted, false)
	case "describe":
		found, err := admin.DescribeTopics([]string{step.Topic})
		if err != nil {
			return nil, err
		}
		if found[0].Err != sarama.ErrNoError {
			return nil, found[0].Err
		}
		return program.Line{"partitions": len(found[0].Partitions)}, nil
	case "configs":
		found, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: step.Topic})
		told := map[string]string{}
		for _, one := range found {
			told[one.Name] = one.Value
		}
		return program.Line{"configs": told}, err
	case "alter":
		changes := map[string]sarama.IncrementalAlterConfigsEntry{}
		for name, value := range step.Configs {
			changes[name] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}
		}
		for _, name := range step.Removed {
			changes[name] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationDelete}
		}
		return nil, admin.IncrementalAlterConfig(sarama.TopicResource, step.Topic, changes, false)
	case "partitions":
		return nil, admin.CreatePartitions(step.Topic, step.Total, nil, false)
	case "trim":
		// Its answer has no low watermark.
		return program.Line{"low": step.Before}, admin.DeleteRecords(step.Topic, map[int32]int64{step.Partition: step.Before})
	case "ends":
		first, err := connection.GetOffset(step.Topic, step.Partition, sarama.OffsetOldest)
		if err != nil {
			return nil, err
		}
		end, err := connection.GetOffset(step.Topic, step.Partition, sarama.OffsetNewest)
		return program.Line{"first": first, "end": end}, err
	case "delete":
		return nil, admin.DeleteTopic(step.Topic)
	case "cluster":
		nodes, controller, err := admin.DescribeCluster()
		return program.Line{"nodes": len(nodes), "controller": controller >= 0}, err
	}
	return nil, fmt.Errorf("unknown: %s", step.Do)
}
