// Messages: sizes, numbers, a slow receiver; tasks and connections; the control port under abuse.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <semaphore>

#include "transfer/control_record.h"
#include "transfer/support.h"

namespace switchyard::testing {
namespace {

class Messages : public OnFabric {};
INSTANTIATE_TEST_SUITE_P(All, Messages, all_fabrics(), fabric_name);

TEST_P(Messages, OfEverySize) {
  EngineOptions options;
  options.message_bytes = 100'000;
  std::atomic<int> right{0}, wrong{0};
  Side a = side(64, options), b = side(64, options);
  b.engine->on_message([&](const PeerAddress& from, std::span<const std::byte> message) {
    (from == a.address() && filled(message, message.size()) ? right : wrong) += 1;
  });
  std::vector<Outcome> outcomes;
  for (std::size_t bytes : {0ul, 1ul, 7ul, 8ul, 1000ul, 65'535ul, 65'536ul, 99'999ul, 100'000ul}) {
    std::vector<std::byte> message(bytes);
    fill(message, bytes);
    Outcome outcome;
    ASSERT_TRUE(a.engine->send(b.address(), message, outcome.done()));
    outcomes.push_back(outcome);
  }
  for (auto& outcome : outcomes) EXPECT_EQ(outcome.word(), "ok");
  EXPECT_EQ(right, 9);
  EXPECT_EQ(wrong, 0);
  std::vector<std::byte> large(100'001);
  EXPECT_EQ(a.engine->send(b.address(), large).error().code, ErrorCode::out_of_range);
  EngineOptions smaller;
  smaller.message_bytes = 1000;
  Side c = side(64, smaller);
  Outcome too_long;
  ASSERT_TRUE(a.engine->send(c.address(), std::span(large).first(1001), too_long.done()));
  EXPECT_EQ(too_long.word(), "out_of_range");
}

TEST_P(Messages, ThousandsToASlowReceiverWithoutAGrowingQueue) {
  if (LiveSimulation::knows(GetParam()))
    GTEST_SKIP() << "simulated engines share a thread; a handler may not block it";
  constexpr int kMessages = 5000;
  EngineOptions few;
  few.max_transfers = 64;
  few.message_slots = 8;
  std::counting_semaphore<> permits(0);
  std::atomic<int> received{0}, acknowledged{0};
  Side a = side(64, few), b = side(64, few);
  b.engine->on_message([&](const PeerAddress&, std::span<const std::byte>) {
    // A handler must not block; this one does, to be slow.
    permits.acquire();
    ++received;
  });
  std::vector<std::byte> message(4000);
  int sent = 0;
  bool pushed_back = false;
  auto try_send = [&] {
    auto transfer =
        a.engine->send(b.address(), message, [&](const Status& status) { acknowledged += status ? 1 : 0; });
    if (transfer) ++sent;
    return transfer.has_value();
  };
  // The queue fills to its limit, and no further, while nothing is taken.
  while (try_send()) {
  }
  EXPECT_LE(sent, 64);
  while (sent < kMessages) {
    permits.release();
    if (!try_send()) pushed_back = true;
  }
  permits.release(kMessages);
  EXPECT_TRUE(pushed_back);
  EXPECT_TRUE(eventually([&] { return acknowledged == kMessages; }));
  EXPECT_EQ(received, kMessages);
}

TEST_P(Messages, DeadlinesExpireWhileTheReceiverIsSlow) {
  if (LiveSimulation::knows(GetParam()))
    GTEST_SKIP() << "simulated engines share a thread; a handler may not block it";
  EngineOptions one;
  one.message_slots = 1;
  std::binary_semaphore go(0), began(0);
  Side a = side(64), b = side(64, one);
  b.engine->on_message([&](const PeerAddress&, std::span<const std::byte>) {
    began.release();
    go.acquire();
  });
  Outcome first, second, drained;
  ASSERT_TRUE(a.engine->send(b.address(), {}, first.done()));
  began.acquire();
  ASSERT_TRUE(
      a.engine->send(b.address(), {}, second.done(), monotonic_now() + std::chrono::milliseconds(10)));
  EXPECT_EQ(second.word(), "timed_out");
  go.release();
  EXPECT_EQ(first.word(), "ok");
}

// Longer than what the sockets take: each side has to read while its own waits.
TEST_P(Messages, LongOnesBothWaysAtOnce) {
  constexpr std::size_t kBytes = 32 << 20;
  EngineOptions options;
  options.message_bytes = kBytes;
  // One message takes seconds under a sanitizer, and what opens paths waits behind it.
  options.heartbeat_limit = options.connect_limit = std::chrono::seconds(30);
  Side a = side(64, options), b = side(64, options);
  std::vector<std::byte> to_a(kBytes), to_b(kBytes);
  fill(to_a, 1);
  fill(to_b, 2);
  std::atomic<int> right{0};
  const auto takes = [&right](const std::vector<std::byte>& expected) {
    return [&](const PeerAddress&, std::span<const std::byte> message) {
      right += std::ranges::equal(message, expected) ? 1 : 0;
    };
  };
  a.engine->on_message(takes(to_a));
  b.engine->on_message(takes(to_b));
  for (int round = 0; round < 2; ++round) {
    Outcome there, back;
    ASSERT_TRUE(a.engine->send(b.address(), to_b, there.done()));
    ASSERT_TRUE(b.engine->send(a.address(), to_a, back.done()));
    EXPECT_EQ(there.word(), "ok");
    EXPECT_EQ(back.word(), "ok");
  }
  EXPECT_EQ(right, 4);
}

// Two messages wait for a third when their engine closes; the Done of the first cancels the second.
TEST_P(Messages, DoneComesBeforeDrainedWhileTheEngineCloses) {
  if (LiveSimulation::knows(GetParam()))
    GTEST_SKIP() << "simulated engines share a thread; a handler may not block it";
  EngineOptions one;
  one.message_slots = 1;
  std::binary_semaphore go(0), began(0);
  Side a = side(64), b = side(64, one);
  b.engine->on_message([&](const PeerAddress&, std::span<const std::byte>) {
    began.release();
    go.acquire();
  });
  ASSERT_TRUE(a.engine->send(b.address(), {}, {}));
  began.acquire();
  std::array<Transfer, 2> waiting;
  std::atomic<bool> sent = false;
  std::vector<std::string> order;  // the worker's, until the engine is closed
  for (std::size_t i = 0; i < 2; ++i) {
    auto transfer = a.engine->send(b.address(), {}, [&, i](const Status& status) {
      EXPECT_FALSE(status);
      EXPECT_TRUE(sent);
      order.push_back("done");
      if (order.size() == 1) waiting[1 - i].cancel([&] { order.push_back("drained"); });
    });
    ASSERT_TRUE(transfer);
    waiting[i] = *transfer;
  }
  sent = true;
  a.engine.reset();
  go.release();
  EXPECT_EQ(order, (std::vector<std::string>{"done", "done", "drained"}));
}

TEST_P(Messages, ToItselfAndWithoutAHandler) {
  Outcome sent, dropped;
  std::atomic<int> received{0};
  Side a = side(64), b = side(64);
  a.engine->on_message([&](const PeerAddress& from, std::span<const std::byte> message) {
    received += from == a.address() && message.size() == 5 ? 1 : 0;
  });
  ASSERT_TRUE(a.engine->send(a.address(), std::vector<std::byte>(5), sent.done()));
  EXPECT_EQ(sent.word(), "ok");
  EXPECT_EQ(received, 1);
  ASSERT_TRUE(a.engine->send(b.address(), std::vector<std::byte>(5), dropped.done()));
  EXPECT_EQ(dropped.word(), "ok");
  EXPECT_EQ(b.engine->metrics().messages_dropped, 1u);
}

// Threads of engines in this process.
int workers() {
  int count = 0;
  std::error_code gone;  // a thread may end between two looks
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", gone)) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    count += name.starts_with("sy-") ? 1 : 0;
  }
  return count;
}

TEST_P(Messages, CallbacksMayDoEverything) {
  Side a = side(64), b = side(64);
  Outcome finished;
  // A chain of a hundred sends, each begun in the callback of the one before; then the engine goes in a
  // callback.
  std::function<void(int)> next = [&](int left) {
    if (left == 0) {
      static_cast<void>(a.engine->post([&] {
        a.engine->make_counter().value();
        throw std::runtime_error("no matter");
      }));
      static_cast<void>(a.engine->post([&, done = finished.done()] {
        a.region = {};
        a.engine.reset();
        done({});
      }));
      return;
    }
    static_cast<void>(a.engine->send(b.address(), {}, [&next, left](const Status& status) {
      if (status) next(left - 1);
    }));
  };
  next(100);
  EXPECT_EQ(finished.word(), "ok");
  // An engine that goes in its own callback leaves its worker to end by itself: the process outlives it here.
  EXPECT_TRUE(eventually([] { return workers() <= 1; }));
}

TEST_P(Messages, TasksRunOnceEach) {
  std::atomic<int> ran{0};
  Side a = side(64);
  int accepted = 0;
  for (int i = 0; i < 100'000; ++i) accepted += a.engine->post([&] { ++ran; }) ? 1 : 0;
  EXPECT_TRUE(eventually([&] { return ran == accepted; }));
}

// ---- the control port

class Stranger {
 public:
  explicit Stranger(const PeerAddress& peer) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(peer.control_port);
    inet_pton(AF_INET, peer.control_host.c_str(), &address.sin_addr);
    connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    timeval limit{20, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~Stranger() { ::close(socket_); }
  Stranger(const Stranger&) = delete;
  bool connected() const { return connected_; }
  void say(std::span<const std::byte> bytes) {
    static_cast<void>(::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }
  // True when the engine closes the connection, whatever it says before.
  bool is_closed() {
    char sink[4096];
    ssize_t count;
    while ((count = recv(socket_, sink, sizeof sink, 0)) > 0) {
    }
    return count == 0 || errno == ECONNRESET;
  }

 private:
  int socket_;
  bool connected_ = false;
};

void still_works(Side& a) {
  Side b = make_side("net", 64);
  Side& from = b;
  Outcome sent;
  if (a.address().rails[0].fabric == "net") {
    Write write;
    write.source = from.region;
    write.peer = a.address();
    write.target = a.key();
    write.bytes = 64;
    ASSERT_TRUE(from.engine->write(write, sent.done()));
    EXPECT_EQ(sent.word(), "ok");
  }
}

TEST(ControlPort, GarbageIsRefusedAndHarmsNobody) {
  spdlog::set_level(spdlog::level::off);
  Side a = make_side("net", 64);
  std::uint64_t seed = 1;
  for (std::size_t bytes : {1ul, 7ul, 8ul, 9ul, 100ul, 5000ul, 100'000ul}) {
    std::vector<std::byte> garbage(bytes);
    fill(garbage, seed++);
    Stranger stranger(a.address());
    ASSERT_TRUE(stranger.connected());
    stranger.say(garbage);
    if (bytes >= 8) {
      EXPECT_TRUE(stranger.is_closed()) << bytes;
    }
  }
  still_works(a);
}

TEST(ControlPort, OversizeAndUntimelyRecordsAreRefused) {
  spdlog::set_level(spdlog::level::off);
  using namespace transfer;
  Side a = make_side("net", 64);
  std::vector<std::vector<std::byte>> tries;
  const RecordHeader huge{.payload_bytes = 0xffff'ffff, .type = 0};
  auto header = std::as_bytes(std::span(&huge, 1));
  tries.emplace_back(header.begin(), header.end());
  for (Record record : {Record{Heartbeat{}}, Record{MessageAck{1}}, Record{Welcome{}}, Record{Goodbye{"bye"}},
                        Record{Message{1, {}}}, Record{Reject{Reject::Why::denied, "no"}}}) {
    append_record(tries.emplace_back(), record);
  }
  Hello wrong_epoch{a.address(),
                    a.address().engine_id,
                    a.address().epoch + 1,
                    {.message_bytes = 100, .message_slots = 1, .log = {{0, 1}}}};
  append_record(tries.emplace_back(), Greeting{});
  append_record(tries.back(), wrong_epoch);
  Hello itself{a.address(),
               a.address().engine_id,
               a.address().epoch,
               {.message_bytes = 100, .message_slots = 1, .log = {{0, 1}}}};
  append_record(tries.emplace_back(), Greeting{});
  append_record(tries.back(), itself);
  Hello no_rail{a.address(),
                a.address().engine_id,
                a.address().epoch,
                {.message_bytes = 100, .message_slots = 1, .log = {{0, 1}}}};
  no_rail.from.engine_id = {1, 2};
  no_rail.from.rails = {{"other", {}}};
  append_record(tries.emplace_back(), Greeting{});
  append_record(tries.back(), no_rail);
  Hello bad_rail = no_rail;
  bad_rail.from.rails = {{"net", std::vector<std::byte>(3)}};
  append_record(tries.emplace_back(), Greeting{});
  append_record(tries.back(), bad_rail);
  for (const auto& bytes : tries) {
    Stranger stranger(a.address());
    stranger.say(bytes);
    EXPECT_TRUE(stranger.is_closed());
  }
  EXPECT_TRUE(eventually([&] { return a.engine->metrics().peers_connected == 0; }));
  still_works(a);
}

TEST(ControlPort, ManySilentConnectionsKeepNobodyOut) {
  spdlog::set_level(spdlog::level::off);
  EngineOptions options;
  options.connect_limit = std::chrono::milliseconds(200);
  Side a = make_side("net", 64, options);
  std::vector<std::unique_ptr<Stranger>> silent;
  for (int i = 0; i < 300; ++i) silent.push_back(std::make_unique<Stranger>(a.address()));
  still_works(a);
  for (auto& stranger : silent) EXPECT_TRUE(stranger->is_closed()) << "closed when its time is over";
  still_works(a);
}

TEST(ControlPort, AnAcknowledgementOfNothingIsIgnored) {
  spdlog::set_level(spdlog::level::off);
  using namespace transfer;
  Side a = make_side("net", 64), other = make_side("net", 64);
  Hello hello{other.address(),
              a.address().engine_id,
              a.address().epoch,
              {.message_bytes = 100, .message_slots = 1, .log = {{0, 1}}}};
  hello.from.engine_id = {3, 4};
  std::vector<std::byte> bytes;
  append_record(bytes, Greeting{});
  append_record(bytes, hello);
  for (std::uint64_t id : {0ul, 1ul, 1ul << 32, ~0ul}) append_record(bytes, MessageAck{id});
  append_record(bytes, Goodbye{"done"});
  Stranger stranger(a.address());
  stranger.say(bytes);
  EXPECT_TRUE(stranger.is_closed());
  EXPECT_TRUE(eventually([&] { return a.engine->metrics().peers_lost == 1; }));
  still_works(a);
}

}  // namespace
}  // namespace switchyard::testing
