// How fast the transfer engine is between two processes of this machine, fabric by fabric: bandwidth of
// writes, time of an 8-byte write with a counter and of a message (half a round trip), the same for an engine
// that had fallen asleep, and what an idle engine costs. One line of JSON per fabric. Compare within one run
// only.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "switchyard/transfer.h"

namespace switchyard {
namespace {

constexpr std::size_t kBytes = 32 << 20;

double seconds_since(TimePoint start) { return to_seconds(monotonic_now() - start); }

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// What one process tells the other before the engines can talk.
struct Card {
  std::uint32_t address_bytes = 0, key_bytes = 0;
  std::byte address[2048], key[512];
  CounterId counter;
};

struct End {
  std::unique_ptr<TransferEngine> engine;
  std::vector<std::byte> memory;
  Region region;
  Counter counter;
  PeerAddress peer;
  RegionKey target;
  CounterId far_counter;
  std::uint64_t counted = 0;
  std::atomic<int> messages{0};

  bool open(const std::string& fabric, int in, int out) {
    EngineOptions options;
    options.fabric = fabric;
    auto opened = TransferEngine::open(options);
    if (!opened) {
      std::fprintf(stderr, "%s\n", opened.error().message.c_str());
      return false;
    }
    engine = std::move(*opened);
    engine->on_message([this](const PeerAddress&, std::span<const std::byte>) { ++messages; });
    memory.assign(kBytes, std::byte{1});
    region = *engine->register_region(memory.data(), memory.size());
    counter = *engine->make_counter();
    Card mine, theirs;
    const auto address = engine->address().serialize(), key = region.key().serialize();
    mine.address_bytes = static_cast<std::uint32_t>(address.size());
    mine.key_bytes = static_cast<std::uint32_t>(key.size());
    std::copy(address.begin(), address.end(), mine.address);
    std::copy(key.begin(), key.end(), mine.key);
    mine.counter = counter.id();
    if (::write(out, &mine, sizeof mine) != sizeof mine ||
        ::read(in, &theirs, sizeof theirs) != sizeof theirs)
      return false;
    peer = *PeerAddress::parse(std::span(theirs.address).first(theirs.address_bytes));
    target = *RegionKey::parse(std::span(theirs.key).first(theirs.key_bytes));
    far_counter = theirs.counter;
    return true;
  }
  Write run(std::uint64_t offset, std::uint64_t bytes, bool count) {
    Write write{.source = region,
                .source_offset = offset,
                .peer = peer,
                .target = target,
                .target_offset = offset,
                .bytes = bytes};
    if (count) write.options.counter = far_counter;
    return write;
  }
  void write_counted() { static_cast<void>(engine->write(run(0, 8, true), {})); }
  void await() {
    ++counted;
    while (counter.arrived() < counted) std::this_thread::yield();
  }
  void await_message(int count) {
    while (messages < count) std::this_thread::yield();
  }
};

// Sixteen writes at a time; each that ends begins the next, on the worker, so that nothing else needs a core.
double bandwidth(End& end, std::uint64_t bytes, int writes) {
  std::atomic<int> left{writes}, running{16};
  std::function<void(int)> next = [&](int lane) {
    if (left.fetch_sub(1) <= 0) {
      --running;
      running.notify_one();
      return;
    }
    static_cast<void>(end.engine->write(end.run(static_cast<std::uint64_t>(lane) << 20, bytes, false),
                                        [&next, lane](const Status&) { next(lane); }));
  };
  const TimePoint start = monotonic_now();
  for (int lane = 0; lane < 16; ++lane) static_cast<void>(end.engine->post([&next, lane] { next(lane); }));
  for (int now; (now = running) != 0;) running.wait(now);
  return static_cast<double>(bytes) * writes / seconds_since(start) / 1e9;
}

constexpr int kRounds = 2000, kSleepyRounds = 50;

void measure(const std::string& fabric) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) return;
  const pid_t child = fork();
  if (child == 0) {
    End end;
    if (end.open(fabric, there[0], back[1])) {
      for (int i = 0; i < kRounds + kSleepyRounds; ++i) {
        end.await();
        end.write_counted();
      }
      for (int i = 1; i <= kRounds; ++i) {
        end.await_message(i);
        static_cast<void>(end.engine->send(end.peer, {}));
      }
      char wait;
      static_cast<void>(!::read(there[0], &wait, 1));
    }
    end.engine.reset();
    _exit(0);
  }
  {
    End end;
    if (end.open(fabric, back[0], there[1])) {
      auto ping = [&] {
        end.write_counted();
        end.await();
      };
      TimePoint start = monotonic_now();
      for (int i = 0; i < kRounds; ++i) ping();
      const double latency = seconds_since(start) / kRounds / 2;
      double sleepy = 0;
      for (int i = 0; i < kSleepyRounds; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        start = monotonic_now();
        ping();
        sleepy += seconds_since(start) / kSleepyRounds / 2;
      }
      start = monotonic_now();
      for (int i = 1; i <= kRounds; ++i) {
        static_cast<void>(end.engine->send(end.peer, {}));
        end.await_message(i);
      }
      const double message = seconds_since(start) / kRounds / 2;
      bandwidth(end, 1 << 20, 64);
      const double small = bandwidth(end, 64 << 10, 4000), large = bandwidth(end, 1 << 20, 500);
      const double before = cpu_seconds();
      std::this_thread::sleep_for(std::chrono::seconds(2));
      const double idle = (cpu_seconds() - before) / 2;
      std::printf(
          "{\"fabric\": \"%s\", \"write_64KiB_GBps\": %.2f, \"write_1MiB_GBps\": %.2f, \"write_8B_us\": "
          "%.1f, "
          "\"write_8B_after_5ms_us\": %.1f, \"message_us\": %.1f, \"idle_cpu_percent\": %.2f}\n",
          fabric.c_str(), small, large, latency * 1e6, sleepy * 1e6, message * 1e6, idle * 100);
      std::fflush(stdout);
    }
    static_cast<void>(!::write(there[1], "x", 1));
    waitpid(child, nullptr, 0);
  }
  for (int fd : {there[0], there[1], back[0], back[1]}) ::close(fd);
}

}  // namespace
}  // namespace switchyard

int main(int count, char** words) {
  switchyard::log::start("transfer_speed", "error");
  std::vector<std::string> fabrics(words + 1, words + count);
  if (fabrics.empty()) fabrics = {"shm", "net", "tcp;ofi_rxm"};
  for (const std::string& fabric : fabrics) switchyard::measure(fabric);
  return 0;
}
