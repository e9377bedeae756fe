#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "transfer_drive.h"
#include "transfer_pattern.h"

namespace switchyard::bench {
namespace {

constexpr Nanos kEndLimit = std::chrono::seconds(20);

Nanos nanos(double seconds) {
  return std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
}

// Keeps `lanes` operations under way on the engine's worker until time is over. `start` begins an operation
// of a lane and hands over its Done, which comes before the deadline; it returns why not.
class Lanes {
 public:
  using Start = std::function<Status(std::uint32_t lane, TimePoint deadline, Done done)>;

  Lanes(Side& side, std::uint32_t lanes, Start start)
      : engine_(side.engine()), lanes_(lanes), start_(std::move(start)) {}

  // Operations per second.
  Result<double> run(double seconds) {
    running_ = lanes_;
    auto posted = engine_.post([this, seconds] {
      // The time that a busy machine takes to run the worker is not the engine's; and this way something is
      // always counted.
      begin_ = monotonic_now();
      end_ = begin_ + nanos(seconds);
      for (std::uint32_t lane = 0; lane < lanes_; ++lane) next(lane);
    });
    if (!posted) return pass(posted.error());
    std::unique_lock lock(mutex_);
    // Every operation has a deadline.
    changed_.wait(lock, [&] { return over_; });
    if (error_) return pass(*error_);
    return static_cast<double>(count_) / to_seconds(finished_ - begin_);
  }
  std::uint64_t count() const { return count_; }

 private:
  void next(std::uint32_t lane) {
    if (!error_ && monotonic_now() < end_) {
      const Status started = start_(lane, end_ + kEndLimit, [this, lane](const Status& status) {
        if (status) {
          ++count_;
        } else if (!error_) {
          error_ = status.error();
        }
        next(lane);
      });
      if (started) return;
      if (!error_) error_ = started.error();
    }
    if (--running_ != 0) return;
    finished_ = monotonic_now();
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }

  TransferEngine& engine_;
  const std::uint32_t lanes_;
  const Start start_;
  TimePoint begin_, end_, finished_;
  std::uint64_t count_ = 0;  // the worker's, as everything below but what the lock guards
  std::uint32_t running_ = 0;
  std::optional<Error> error_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
};

// Rounds of "send, and wait for what comes back". `send` begins a round; answered() ends it.
class Rounds {
 public:
  // `send` runs on the worker, or, after a pause, on the caller's thread.
  Rounds(Side& side, std::function<Status()> send) : engine_(side.engine()), send_(std::move(send)) {}

  Result<Times> run(double seconds, Nanos pause) {
    const TimePoint end = monotonic_now() + nanos(seconds);
    end_ = end;
    paused_ = pause != Nanos::zero();
    do {
      if (paused_) std::this_thread::sleep_for(pause);
      {
        const std::lock_guard lock(mutex_);
        over_ = false;
      }
      start_ = monotonic_now();
      if (paused_) {
        if (auto sent = send_(); !sent) return pass(sent.error());
      } else if (auto posted = engine_.post([this] { begin(); }); !posted) {
        return pass(posted.error());
      }
      std::unique_lock lock(mutex_);
      if (!changed_.wait_for(lock, nanos(seconds) + kEndLimit, [&] { return over_; }))
        return fail(ErrorCode::timed_out, "an echo did not come back");
      if (error_) return pass(*error_);
    } while (paused_ && monotonic_now() < end);
    std::sort(times_.begin(), times_.end());
    return std::move(times_);
  }

  void answered() {
    const TimePoint now = monotonic_now();
    times_.push_back(to_seconds(now - start_) / 2);
    if (paused_ || now >= end_) return finish();
    begin();
  }

 private:
  void begin() {
    start_ = monotonic_now();
    if (auto sent = send_(); !sent) {
      error_ = sent.error();
      finish();
    }
  }
  void finish() {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }

  TransferEngine& engine_;
  const std::function<Status()> send_;
  TimePoint start_, end_;
  bool paused_ = false;
  Times times_;
  std::optional<Error> error_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
};

Status started(const Result<Transfer>& transfer) {
  if (!transfer) return pass(transfer.error());
  return {};
}

}  // namespace

double percentile(const Times& sorted, double share) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1,
                         static_cast<std::size_t>(share * static_cast<double>(sorted.size())))];
}

Result<Throughput> engine_writes(Side& side, const WriteLoad& load, double seconds) {
  const WritePlaces places(load);
  std::vector<std::uint64_t> turns(load.depth, 0);
  Lanes lanes(side, load.depth, [&](std::uint32_t lane, TimePoint deadline, Done done) {
    Write write = side.write(places.offset(lane, turns[lane]++), load.bytes);
    write.options.deadline = deadline;
    if (load.counter) write.options.counter = side.far_sink();
    return started(side.engine().write(std::move(write), std::move(done)));
  });
  const auto rate = lanes.run(seconds);
  if (!rate) return pass(rate.error());
  const auto bytes = static_cast<double>(load.bytes);
  return Throughput{*rate * bytes, *rate, static_cast<double>(lanes.count()) * bytes};
}

Result<Throughput> engine_pages(Side& side, const PageLoad& load, double seconds) {
  const PagePlaces places(load);
  Lanes lanes(side, load.depth, [&](std::uint32_t lane, TimePoint deadline, Done done) {
    return started(side.engine().write_pages({.source = side.region(),
                                              .source_offset = places.first(lane),
                                              .source_stride = load.page_bytes,
                                              .source_pages = places.source(),
                                              .peer = side.peer(),
                                              .target = side.target(),
                                              .target_offset = places.first(lane),
                                              .target_stride = load.page_bytes,
                                              .target_pages = places.target(),
                                              .page_bytes = load.page_bytes,
                                              .options = {.counter = side.far_sink(), .deadline = deadline}},
                                             std::move(done)));
  });
  const auto rate = lanes.run(seconds);
  if (!rate) return pass(rate.error());
  const double bytes = static_cast<double>(load.page_bytes) * load.pages;
  return Throughput{*rate * bytes, *rate * load.pages, static_cast<double>(lanes.count()) * bytes};
}

Result<Throughput> engine_messages(Side& side, std::uint64_t bytes, std::uint32_t depth, double seconds) {
  const std::vector<std::byte> message(std::max<std::uint64_t>(bytes, 1), std::byte{kSink});
  Lanes lanes(side, depth, [&](std::uint32_t, TimePoint deadline, Done done) {
    return started(side.engine().send(side.peer(), message, std::move(done), deadline));
  });
  const auto rate = lanes.run(seconds);
  if (!rate) return pass(rate.error());
  const auto size = static_cast<double>(message.size());
  return Throughput{*rate * size, *rate, static_cast<double>(lanes.count()) * size};
}

Result<Times> engine_echoes(Side& side, double seconds, Nanos pause) {
  // The counter's expectation outlives this call if an echo is lost; it holds what it needs.
  struct State {
    explicit State(Side& of) : side(of) {}
    Side& side;
    std::optional<Rounds> rounds;
  };
  auto state = std::make_shared<State>(side);
  std::weak_ptr<State> weak = state;
  state->rounds.emplace(side, [&side, weak]() -> Status {
    auto armed =
        side.echo().expect(side.echo().arrived() + 1, TimePoint::max(), [weak](const Status& status) {
          if (auto alive = weak.lock(); alive && status) alive->rounds->answered();
        });
    if (!armed) return armed;
    Write ping = side.write(0, 8);
    ping.options.counter = side.far_echo();
    return started(side.engine().write(std::move(ping), {}));
  });
  auto times = state->rounds->run(seconds, pause);
  if (!times) side.echo().cancel();
  return times;
}

Result<Times> engine_message_echoes(Side& side, double seconds) {
  const std::vector<std::byte> message(8, std::byte{kEcho});
  auto rounds = std::make_shared<Rounds>(
      side, [&side, message] { return started(side.engine().send(side.peer(), message, {})); });
  side.engine().on_message([weak = std::weak_ptr(rounds)](const PeerAddress&, std::span<const std::byte>) {
    if (auto alive = weak.lock()) alive->answered();
  });
  auto times = rounds->run(seconds, {});
  side.engine().on_message({});
  return times;
}

}  // namespace switchyard::bench
