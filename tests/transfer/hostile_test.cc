// The control port among enemies: garbage, replays, floods, stalls, records out of turn, false engines. Each
// is refused, hears nothing that it could use, is logged once, and leaves everybody else alone.
#include <arpa/inet.h>
#include <spdlog/sinks/ostream_sink.h>

#include <algorithm>
#include <sstream>

#include "transfer/control_handshake.h"
#include "transfer/control_pair.h"
#include "transfer/refusal_log.h"

namespace switchyard::testing {
namespace {

using namespace transfer;
using Options = ControlChannel::Options;
using Side = ControlHandshake::Side;

Options keyed(const std::string& key = kSharedKey) {
  Options options;
  options.shared_key = key;
  return options;
}

// Collects what is logged while it lives.
class LogCapture {
 public:
  LogCapture() : before_(spdlog::default_logger()) {
    auto logger =
        std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_level(spdlog::level::warn);
    spdlog::set_default_logger(logger);
  }
  ~LogCapture() { spdlog::set_default_logger(before_); }
  int lines() const {
    const std::string text = text_.str();
    return static_cast<int>(std::ranges::count(text, '\n'));
  }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

class Hostile : public ::testing::Test {
 protected:
  LogCapture log_;
};

// A raw peer that can do the handshake.
struct Intruder : RawPeer {
  ControlHandshake handshake;
  std::vector<std::byte> said;  // all of it

  Intruder(Station& station, const std::string& key)
      : RawPeer(station.self.control_port),
        handshake(ControlSecurity::create(key, {}).value(), Side::dialler,
                  fmt::format("127.0.0.1:{}", station.self.control_port)) {}
  void say_all(const std::vector<std::byte>& bytes) {
    said.insert(said.end(), bytes.begin(), bytes.end());
    RawPeer::say(std::span<const std::byte>(bytes));
  }
  void greet() {
    std::vector<std::byte> out;
    ASSERT_TRUE(handshake.begin(out));
    say_all(out);
  }
  // Up to the point where a hello may follow.
  void prove(Station& station) {
    greet();
    for (bool over = false; !over;) {
      std::optional<Record> record;
      ASSERT_TRUE(poll_until({&station}, [&] { return (record = next()).has_value(); }));
      std::vector<std::byte> out;
      auto taken = handshake.take(*record, out);
      ASSERT_TRUE(taken) << taken.error().message;
      over = *taken;
      say_all(out);
    }
  }
  Hello hello_to(const Station& station) const {
    Hello hello;
    hello.from = station.self;
    hello.from.engine_id = {77, 78};
    hello.to_engine = station.self.engine_id;
    hello.to_epoch = station.self.epoch;
    hello.self = introduction();
    return hello;
  }
  void say_hello(Station& station) {
    say(Record{hello_to(station)});
    std::optional<Record> record;
    ASSERT_TRUE(poll_until({&station}, [&] { return (record = next()).has_value(); }));
    ASSERT_TRUE(std::holds_alternative<Welcome>(*record));
  }
};

// Nothing that identifies the engine has been heard.
bool tells(const std::vector<std::byte>& heard, const Station& station) {
  auto holds = [&](std::span<const std::byte> secret) { return !std::ranges::search(heard, secret).empty(); };
  return holds(station.self.rails[0].address) || holds(std::as_bytes(std::span(station.self.engine_id))) ||
         holds(std::as_bytes(std::span(&station.self.epoch, 1)));
}

void expect_others_welcome(Station& station, const std::string& key) {
  Station friendly(key.empty() ? Options{} : keyed(key));
  friendly.dial(station);
  EXPECT_TRUE(poll_until({&station, &friendly}, [&] { return friendly.witness.open.size() == 1; }));
}

std::vector<Record> one_of_each(const Station& station) {
  Hello hello;
  hello.from = station.self;
  return {hello,          Welcome{},      Reject{Reject::Why::denied, "no"},
          Heartbeat{},    Message{1, {}}, MessageAck{1},
          Goodbye{"bye"}, PathRecord{},   Greeting{},
          Proof{}};
}

TEST_F(Hostile, GarbageOfEverySize) {
  Station station(keyed());
  std::uint64_t state = 1;
  for (std::size_t bytes : {1ul, 7ul, 8ul, 9ul, 100ul, 5000ul, 100'000ul}) {
    std::vector<std::byte> garbage(bytes);
    for (auto& byte : garbage)
      byte = static_cast<std::byte>((state = state * 6364136223846793005u + 1) >> 56);
    RawPeer peer(station.self.control_port);
    peer.say(garbage);
    if (bytes < kRecordHeaderBytes) continue;
    EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); })) << bytes;
    EXPECT_TRUE(peer.heard().empty());
  }
  expect_others_welcome(station, kSharedKey);
  EXPECT_EQ(log_.lines(), 1) << log_.text();
}

TEST_F(Hostile, EveryRecordThatIsNotAGreeting) {
  for (const std::string& key : {std::string(), kSharedKey}) {
    Station station(key.empty() ? Options{} : keyed());
    for (const Record& record : one_of_each(station)) {
      if (std::holds_alternative<Greeting>(record)) continue;
      RawPeer peer(station.self.control_port);
      peer.say(record);
      EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); })) << record.index();
      EXPECT_FALSE(tells(peer.heard(), station));
    }
    EXPECT_EQ(station.witness.hellos, 0);
    expect_others_welcome(station, key);
  }
}

TEST_F(Hostile, EveryRecordThatIsNotAProof) {
  Station station(keyed());
  for (const Record& record : one_of_each(station)) {
    Intruder peer(station, kSharedKey);
    peer.greet();
    peer.say(record);
    EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); })) << record.index();
    EXPECT_FALSE(tells(peer.heard(), station));
  }
  EXPECT_EQ(station.witness.hellos, 0);
  EXPECT_TRUE(station.witness.paths.empty());
  expect_others_welcome(station, kSharedKey);
}

TEST_F(Hostile, EveryRecordThatIsNotAHello) {
  Station station(keyed());
  for (const Record& record : one_of_each(station)) {
    if (std::holds_alternative<Hello>(record)) continue;
    Intruder peer(station, kSharedKey);
    peer.prove(station);
    peer.say(record);
    EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); })) << record.index();
  }
  EXPECT_EQ(station.witness.hellos, 0);
  EXPECT_TRUE(station.witness.paths.empty());
  expect_others_welcome(station, kSharedKey);
}

TEST_F(Hostile, EveryRecordThatHasNoPlaceOnAnOpenLink) {
  Station station(keyed());
  Station bystander(keyed());
  bystander.dial(station);
  ASSERT_TRUE(poll_until({&station, &bystander}, [&] { return bystander.witness.open.size() == 1; }));
  std::size_t closed = 0;
  for (const Record& record : one_of_each(station)) {
    if (record.index() >= 3 && record.index() <= 7) continue;
    Intruder peer(station, kSharedKey);
    peer.prove(station);
    peer.say_hello(station);
    peer.say(record);
    EXPECT_TRUE(poll_until({&station, &bystander}, [&] { return peer.closed(); })) << record.index();
    EXPECT_EQ(station.witness.closed.size(), ++closed);
  }
  EXPECT_TRUE(bystander.witness.closed.empty());
}

TEST_F(Hostile, OversizeRecordsInEveryState) {
  Station station(keyed());
  const RecordHeader header{.payload_bytes = 0xffff'ffff, .type = 8};
  const auto huge = std::as_bytes(std::span(&header, 1));
  for (int stage = 0; stage < 4; ++stage) {
    Intruder peer(station, kSharedKey);
    if (stage == 1) peer.greet();
    if (stage >= 2) peer.prove(station);
    if (stage == 3) peer.say_hello(station);
    peer.RawPeer::say(huge);
    EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); })) << stage;
  }
  // As long as a hello may be, but before any proof.
  RawPeer peer(station.self.control_port);
  const RecordHeader long_header{.payload_bytes = kMaxHandshakeBytes + 1, .type = 8};
  peer.say(std::as_bytes(std::span(&long_header, 1)));
  EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); }));
  expect_others_welcome(station, kSharedKey);
}

TEST_F(Hostile, AStrangerWithoutTheKeyLearnsNothing) {
  Station station(keyed());
  for (const std::string& key : {std::string(), std::string("another key of many bytes")}) {
    Intruder peer(station, key);
    peer.greet();
    peer.say(Record{Proof{}});
    peer.say(Record{peer.hello_to(station)});
    EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); }));
    EXPECT_FALSE(tells(peer.heard(), station));
    std::vector<Record> heard;
    while (auto record = peer.next()) heard.push_back(std::move(*record));
    ASSERT_FALSE(heard.empty());
    ASSERT_TRUE(std::holds_alternative<Reject>(heard.back()));
    EXPECT_EQ(std::get<Reject>(heard.back()).reason, "authentication failed");
    for (const Record& record : heard) EXPECT_FALSE(std::holds_alternative<Proof>(record));
  }
  EXPECT_EQ(station.witness.hellos, 0);
  EXPECT_EQ(log_.lines(), 1) << log_.text();
}

TEST_F(Hostile, AReplayedConversationIsRefused) {
  Station station(keyed());
  Intruder original(station, kSharedKey);
  original.prove(station);
  std::vector<std::byte> tape = original.said;
  append_record(tape, original.hello_to(station));
  RawPeer replay(station.self.control_port);
  replay.say(std::span<const std::byte>(tape));
  EXPECT_TRUE(poll_until({&station}, [&] { return replay.closed(); }));
  EXPECT_EQ(station.witness.hellos, 0);
  EXPECT_FALSE(tells(replay.heard(), station));
}

TEST_F(Hostile, AnOldEpochOrAnotherEngineIsDenied) {
  Station station;
  for (int what = 0; what < 3; ++what) {
    Intruder peer(station, "");
    peer.prove(station);
    Hello hello = peer.hello_to(station);
    if (what == 0) --hello.to_epoch;
    if (what == 1) ++hello.to_engine[0];
    if (what == 2) hello.from.engine_id = station.self.engine_id;
    peer.say(Record{hello});
    std::optional<Record> answer;
    ASSERT_TRUE(poll_until({&station}, [&] { return (answer = peer.next()).has_value(); }));
    EXPECT_TRUE(std::holds_alternative<Reject>(*answer)) << what;
    EXPECT_TRUE(poll_until({&station}, [&] { return peer.closed(); })) << what;
  }
  EXPECT_EQ(station.witness.hellos, 0);
}

TEST_F(Hostile, WhoStallsIsClosedWhenItsTimeIsOver) {
  Options options = keyed();
  options.connect_limit = std::chrono::milliseconds(100);
  options.heartbeat_interval = std::chrono::milliseconds(20);
  Station station(options);
  Intruder silent(station, kSharedKey), greeted(station, kSharedKey), proven(station, kSharedKey);
  greeted.greet();
  proven.prove(station);
  for (Intruder* peer : {&silent, &greeted, &proven}) {
    EXPECT_TRUE(poll_until({&station}, [&] { return peer->closed(); }));
    EXPECT_FALSE(tells(peer->heard(), station));
  }
  expect_others_welcome(station, kSharedKey);
  EXPECT_EQ(log_.lines(), 1) << log_.text();
}

TEST_F(Hostile, AFloodOfConnectionsKeepsNobodyOut) {
  Station station(keyed());
  std::vector<std::unique_ptr<RawPeer>> flood;
  for (int i = 0; i < 400; ++i) {
    flood.push_back(std::make_unique<RawPeer>(station.self.control_port));
    ASSERT_TRUE(flood.back()->connected());
    if (i % 3 == 1) flood.back()->say(Record{Greeting{.security = ControlSecurity::kKey}});
    if (i % 3 == 2) flood.back()->say(Record{Heartbeat{}});
  }
  expect_others_welcome(station, kSharedKey);
  EXPECT_EQ(log_.lines(), 1) << log_.text();
}

// A peer that talks and never listens is not read any more once so much waits for it; others are.
TEST_F(Hostile, WhoNeverReadsCostsABoundedAmount) {
  Station station;
  Intruder peer(station, "");
  peer.prove(station);
  peer.say_hello(station);
  std::vector<std::byte> messages;
  for (std::uint64_t id = 0; id < 2000; ++id) append_record(messages, Message{id, {}});
  std::size_t offset = 0, taken = 0, unchanged = 0;
  ASSERT_TRUE(poll_until({&station}, [&] {
    offset += peer.RawPeer::say(std::span<const std::byte>(messages).subspan(offset));
    offset %= messages.size();
    unchanged = station.witness.messages.size() == taken ? unchanged + 1 : 0;
    taken = station.witness.messages.size();
    return unchanged > 1000 || taken > (1 << 20);
  }));
  EXPECT_TRUE(station.witness.closed.empty());
  EXPECT_LT(taken, 1u << 20);
  expect_others_welcome(station, "");
}

// ---- a false engine, which a true one dials

class FalseEngine {
 public:
  FalseEngine() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(socket_, 4), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
  }
  ~FalseEngine() {
    if (peer_ >= 0) ::close(peer_);
    ::close(socket_);
  }
  std::uint16_t port() const { return port_; }
  // Accepts and answers the first greeting with `answers`.
  void step(const std::vector<Record>& answers) {
    if (peer_ < 0) peer_ = accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK);
    if (peer_ < 0) return;
    std::byte buffer[4096];
    ssize_t count;
    while ((count = recv(peer_, buffer, sizeof buffer, 0)) > 0)
      heard.insert(heard.end(), buffer, buffer + count);
    if (heard.empty() || answered_) return;
    answered_ = true;
    std::vector<std::byte> bytes;
    for (const Record& record : answers) append_record(bytes, record);
    static_cast<void>(::send(peer_, bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }
  std::vector<std::byte> heard;

 private:
  int socket_;
  int peer_ = -1;
  std::uint16_t port_ = 0;
  bool answered_ = false;
};

TEST_F(Hostile, AFalseEngineLearnsNothing) {
  const Greeting greeting{.security = ControlSecurity::kKey};
  struct {
    std::vector<Record> answers;
    ErrorCode code;
  } tries[] = {
      {{greeting, Proof{}}, ErrorCode::denied},
      {{greeting, Welcome{introduction()}}, ErrorCode::peer_lost},
      {{Welcome{introduction()}}, ErrorCode::peer_lost},
      {{Greeting{}}, ErrorCode::denied},
      {{Greeting{}, Welcome{introduction()}}, ErrorCode::denied},
      {{Greeting{.version = 99}}, ErrorCode::unsupported},
      {{greeting, PathRecord{}}, ErrorCode::peer_lost},
      {{Reject{Reject::Why::denied, std::string("no\nfake log line\x1b[31m")}}, ErrorCode::denied},
      {{greeting}, ErrorCode::peer_lost},
  };
  for (const auto& attempt : tries) {
    Options options = keyed();
    options.connect_limit = std::chrono::milliseconds(200);
    Station station(options);
    FalseEngine enemy;
    PeerAddress address = station.self;
    address.engine_id = {9, 9};
    address.control_port = enemy.port();
    ASSERT_TRUE(station.channel->dial(address, introduction(), monotonic_now()));
    ASSERT_TRUE(poll_until({&station}, [&] {
      enemy.step(attempt.answers);
      return station.witness.closed.size() == 1;
    }));
    EXPECT_EQ(station.witness.closed[0].code, attempt.code) << station.witness.closed[0].message;
    EXPECT_EQ(station.witness.closed[0].message.find('\n'), std::string::npos);
    enemy.step({});
    EXPECT_FALSE(tells(enemy.heard, station));
    EXPECT_TRUE(station.witness.open.empty());
  }
}

// ---- the log

TEST_F(Hostile, RefusalsAreLoggedOncePerSourceAndMinute) {
  RefusalLog refusals;
  TimePoint now{std::chrono::hours(1)};
  for (int i = 0; i < 1000; ++i) refusals.warn("10.0.0.1", "no", now);
  EXPECT_EQ(log_.lines(), 1);
  refusals.warn("10.0.0.2", "no", now);
  EXPECT_EQ(log_.lines(), 2);
  EXPECT_NE(log_.text().find("999 refusals"), std::string::npos);
  for (int i = 0; i < 10'000; ++i) refusals.warn(fmt::format("10.1.{}.{}", i / 256, i % 256), "no", now);
  EXPECT_EQ(log_.lines(), 64) << "however many sources there are";
  now += std::chrono::minutes(1);
  refusals.warn("10.0.0.1", "no", now);
  EXPECT_EQ(log_.lines(), 65);
}

}  // namespace
}  // namespace switchyard::testing
