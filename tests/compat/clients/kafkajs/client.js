// Operations of the scenarios with KafkaJS.
'use strict'

const readline = require('readline')
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')

const TYPES = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}
let over = false
let endNow
const ended = new Promise(resolve => {
  endNow = () => { over = true; resolve() }
})

const out = line => process.stdout.write(JSON.stringify(line) + '\n')
const packed = value => (value === null || value === undefined ? null : Buffer.from(value).toString('hex'))
const unpacked = value => (value === null ? null : Buffer.from(value, 'hex'))
const sleep = time => new Promise(resolve => setTimeout(resolve, time))

// KafkaJS leaves all codecs but gzip to others.
function addCodecs() {
  CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
  const lz4 = require('lz4js')
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
    decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
  })
  const simple = new Promise(resolve => require('zstd-codec').ZstdCodec.run(zstd => resolve(new zstd.Simple())))
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from((await simple).compress(encoder.buffer)),
    decompress: async buffer => Buffer.from((await simple).decompress(buffer)),
  })
}

// What the client does not repeat of its own accord while a node is away.
async function patiently(call) {
  for (let left = 60; ; left--) {
    try {
      return await call()
    } catch (error) {
      if (left === 0) throw error
      console.error('again:', String(error))
      await sleep(500)
    }
  }
}

// Values of one name become a list; the order of names is that of their first value.
function headersOut(headers) {
  const found = {}
  for (const [name, value] of headers) {
    const bytes = unpacked(value)
    if (name in found) found[name] = [].concat(found[name], [bytes])
    else found[name] = bytes
  }
  return found
}

function shown(partition, message) {
  const headers = []
  for (const [name, value] of Object.entries(message.headers || {})) {
    for (const one of Array.isArray(value) ? value : [value]) headers.push([name, packed(one)])
  }
  return {
    partition, offset: Number(message.offset), timestamp: Number(message.timestamp),
    key: packed(message.key), value: packed(message.value), headers,
  }
}

class Program {
  constructor(bootstrap) {
    this.kafka = new Kafka({
      clientId: 'compat', brokers: bootstrap.split(','), logLevel: logLevel.WARN,
      logCreator: () => ({ namespace, level, log }) => console.error(level, namespace, log.message, log.error || ''),
      retry: { initialRetryTime: 100, maxRetryTime: 2000, retries: 100 },
    })
    this.bootstrap = bootstrap
  }

  producer(more) {
    return this.kafka.producer({ allowAutoTopicCreation: false, maxInFlightRequests: 1, metadataMaxAge: 1000, ...more })
  }

  async produce({ topic, records, compression, idempotent }) {
    const producer = this.producer({ idempotent })
    await patiently(() => producer.connect())
    const messages = records.map(record => ({
      partition: record.partition, key: unpacked(record.key), value: unpacked(record.value),
      headers: headersOut(record.headers), ...(record.timestamp ? { timestamp: String(record.timestamp) } : {}),
    }))
    const [told] = await producer.send({ topic, acks: -1, compression: TYPES[compression], messages })
    // One batch for the one partition: the offsets follow one another.
    records.forEach((record, at) => out({ partition: told.partition, offset: Number(told.baseOffset) + at }))
    await producer.disconnect()
  }

  // KafkaJS reads in groups only; one of its own for each run, told where to begin.
  async from(topic, partition, first, each) {
    const groupId = `read-${process.pid}-${Date.now()}`
    const consumer = this.kafka.consumer({
      groupId, allowAutoTopicCreation: false, metadataMaxAge: 1000, maxWaitTimeInMs: 200, sessionTimeout: 10000 })
    await patiently(() => consumer.connect())
    await patiently(() => consumer.subscribe({ topic, fromBeginning: true }))
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition: got, message }) => { if (got === partition) each(shown(got, message)) },
    })
    // Where it could not begin, it begins again later, and cannot be told where until then.
    await patiently(async () => consumer.seek({ topic, partition, offset: String(first) }))
    return consumer
  }

  async read({ topic, partition, from, count }) {
    let [missing, next] = [count, from]
    const deadline = Date.now() + 60000
    const consumer = await this.from(topic, partition, from, line => {
      // A consumer that crashed begins anew where it began.
      if (missing > 0 && line.offset >= next) { out(line); missing--; next = line.offset + 1 }
    })
    while (missing > 0) {
      if (Date.now() > deadline) throw new Error(`${missing} records are missing`)
      await sleep(50)
    }
    await consumer.disconnect()
  }

  async seek({ topic, partition, times }) {
    const admin = this.kafka.admin()
    await admin.connect()
    for (const time of times) {
      const found = await patiently(() => admin.fetchTopicOffsetsByTimestamp(topic, time))
      const end = (await patiently(() => admin.fetchTopicOffsets(topic))).find(one => one.partition === partition)
      const offset = Number(found.find(one => one.partition === partition).offset)
      // It says the end where there is no such record.
      out({ offset: offset === Number(end.offset) ? -1 : offset })
    }
    await admin.disconnect()
  }

  async follow({ topic, partition }) {
    const consumer = await this.from(topic, partition, 0, out)
    await ended
    await consumer.disconnect()
  }

  async stream({ topic, partitions, per_second: perSecond }) {
    const producer = this.producer({ idempotent: true, retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 1000 } })
    await patiently(() => producer.connect())
    const started = Date.now()
    let number = 0
    // It holds back nothing of its own: what came due is sent in one request, one at a time.
    while (!over) {
      const due = Math.max(number + 1, Math.floor((Date.now() - started) / 1000 * perSecond))
      const numbers = Array.from({ length: Math.min(due - number, 500) }, (_, at) => number + at)
      number += numbers.length
      await this.sendAll(producer, topic, partitions, numbers)
      await sleep(Math.max(5, number / perSecond * 1000 - (Date.now() - started)))
    }
    await producer.disconnect()
  }

  // One partition a request: of a request to several, KafkaJS sends what was answered anew, under new sequence numbers,
  // where the leader moves before the rest is answered.
  async sendAll(producer, topic, partitions, numbers) {
    const shares = Array.from({ length: partitions }, (_, at) => numbers.filter(number => number % partitions === at))
    for (const share of shares) if (share.length > 0) await this.sendShare(producer, topic, partitions, share)
  }

  async sendShare(producer, topic, partitions, numbers) {
    const messages = numbers.map(number => ({ partition: number % partitions, key: null, value: String(number) }))
    try {
      for (const told of await producer.send({ topic, acks: -1, messages })) {
        let offset = Number(told.baseOffset)
        for (const number of numbers.filter(one => one % partitions === told.partition)) {
          out({ number, partition: told.partition, offset: offset++ })
        }
      }
    } catch (error) {
      for (const number of numbers) out({ number, failed: String(error) })
    }
  }

  async group({ topic, group, mode }) {
    if (mode !== 'eager') throw new Error(`no ${mode} members`)
    const consumer = this.kafka.consumer({
      groupId: group, sessionTimeout: 10000, heartbeatInterval: 1000, metadataMaxAge: 1000, maxWaitTimeInMs: 200,
      rebalanceTimeout: 20000, allowAutoTopicCreation: false, retry: { initialRetryTime: 100, maxRetryTime: 2000, retries: 1000 },
    })
    let held = []
    const { GROUP_JOIN, REBALANCING, COMMIT_OFFSETS, CRASH } = consumer.events
    const lose = () => { out({ revoked: held }); held = [] }
    consumer.on(REBALANCING, lose)
    consumer.on(CRASH, ({ payload }) => { console.error('crash', payload.error, payload.restart); lose() })
    consumer.on(GROUP_JOIN, ({ payload }) => {
      lose()
      held = payload.memberAssignment[topic] || []
      out({ assigned: held })
    })
    consumer.on(COMMIT_OFFSETS, ({ payload }) => {
      const committed = {}
      for (const { partitions } of payload.topics) for (const one of partitions) committed[one.partition] = Number(one.offset)
      out({ committed })
    })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({
      autoCommitInterval: 500,
      eachMessage: async ({ partition, message }) =>
        out({ partition, offset: Number(message.offset), value: packed(message.value) }),
    })
    await ended
    await consumer.disconnect()
    out({ closed: true })
  }

  async committed({ topic, group, partitions }) {
    const admin = this.kafka.admin()
    await admin.connect()
    const [{ partitions: found }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    for (let at = 0; at < partitions; at++) {
      const one = found.find(each => each.partition === at)
      out({ offset: one ? Number(one.offset) : -1 })
    }
    await admin.disconnect()
  }

  async admin({ steps }) {
    const kafka = new Kafka({ clientId: 'compat', brokers: this.bootstrap.split(','), logLevel: logLevel.NOTHING, retry: { retries: 2 } })
    const admin = kafka.admin()
    await admin.connect()
    for (const { do: name, ...step } of steps) {
      try {
        out({ did: name, ...(await STEPS[name](admin, step)) })
      } catch (error) {
        out({ did: name, refused: `${error.name}: ${error.message} ${(error.errors || []).map(String)}` })
      }
    }
    await admin.disconnect()
  }
}

const STEPS = {
  async create(admin, { topic, partitions, configs }) {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    const made = await admin.createTopics({ topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }] })
    // It says false where the topic is there already.
    if (!made) throw new Error('the topic is there already')
    return {}
  },
  async describe(admin, { topic }) {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    return { partitions: topics[0].partitions.length }
  },
  async configs(admin, { topic }) {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name: topic }] })
    return { configs: Object.fromEntries(resources[0].configEntries.map(one => [one.configName, one.configValue])) }
  },
  // The old call, which takes back whatever it does not name; KafkaJS has no other.
  async alter(admin, { topic, configs }) {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: topic, configEntries }] })
    return {}
  },
  async partitions(admin, { topic, total }) {
    await admin.createPartitions({ topicPartitions: [{ topic, count: total }] })
    return {}
  },
  // Its answer has no low watermark, and it does not look for the leader of a topic that it has not met.
  async trim(admin, { topic, partition, before }) {
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] })
    return { low: before }
  },
  async ends(admin, { topic, partition }) {
    const found = (await admin.fetchTopicOffsets(topic)).find(one => one.partition === partition)
    return { first: Number(found.low), end: Number(found.high) }
  },
  async delete(admin, { topic }) {
    await admin.deleteTopics({ topics: [topic] })
    return {}
  },
  async cluster(admin) {
    const found = await admin.describeCluster()
    return { nodes: found.brokers.length, controller: found.controller !== null && found.controller !== undefined }
  },
}

async function main() {
  addCodecs()
  const [operation, bootstrap] = process.argv.slice(2)
  const input = readline.createInterface({ input: process.stdin })
  const first = new Promise(resolve => input.once('line', resolve))
  input.on('close', () => endNow())
  const asked = JSON.parse(await first)
  try {
    await new Program(bootstrap)[operation](asked)
  } catch (error) {
    console.error(error)
    out({ error: String(error) })
    process.exitCode = 1
  }
  process.stdin.destroy()
  setTimeout(() => process.exit(), 500).unref()
}

main()
