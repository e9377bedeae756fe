// A dispatcher for tests: starts instances in this process, gives them orders, and waits for what they
// report.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "pool/fake_model.h"
#include "pool/instance.h"
#include "pool/stats.h"

namespace switchyard::pool {

inline constexpr auto kOrderLimit = std::chrono::seconds(60);

inline kv::Shape fake_shape(const FakeModel& fake) {
  const auto layout = model::kv_layout(fake_config(fake));
  return {.layers = layout.layers, .block_tokens = model::kBlockTokens, .layer_bytes = layout.layer_bytes()};
}

class Ordering : public testing::Test {
 protected:
  struct News {
    std::string instance;
    OrderType type;
    std::vector<std::byte> payload;
  };
  struct Running {
    std::unique_ptr<Instance> instance;
    std::thread thread;
    PeerAddress address;
    InstanceHello hello;
  };
  // A request, as a dispatcher knows it.
  struct Asked {
    Ticket ticket;
    ModelId model = 0;
    std::vector<std::int32_t> prompt;
    std::uint32_t count = 0;  // tokens wanted
    std::vector<std::int32_t> got;
    RowOutcome outcome = RowOutcome::running;
  };

  static constexpr std::uint64_t kHostBytes = 8 << 20;

  void SetUp() override {
    auto engine = TransferEngine::open(pool_engine_options("dispatcher", "shm", shared_key_, false));
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = *std::move(engine);
    channel_ = Channel::create(
        *engine_,
        [this](const PeerAddress& from, std::uint8_t type, std::span<const std::byte> payload) {
          const std::lock_guard lock(mutex_);
          const auto order = static_cast<OrderType>(type);
          if (order == OrderType::hello) {
            const auto hello = parse<InstanceHello>(payload);
            ASSERT_TRUE(hello);
            names_[key_of(from)] = hello->name;
            addresses_[hello->name] = from;
            hellos_[hello->name] = *hello;
          }
          const std::string name = names_[key_of(from)];
          if (order == OrderType::stats) {
            stats_[name] = *parse<Stats>(payload);
            ++stats_seen_[name];
          } else {
            news_.push_back({name, order, {payload.begin(), payload.end()}});
          }
          changed_.notify_all();
        },
        [](const PeerAddress&, const Error&) {});
    auto host = SharedMemory::create("host-kv", kHostBytes);
    ASSERT_TRUE(host);
    host_ = *std::move(host);
  }

  void TearDown() override {
    while (!running_.empty()) end(running_.begin()->first);
    if (channel_) channel_->close();
    engine_.reset();
  }

  virtual void adjust(InstanceOptions&) {}

  void start(const std::string& name, std::uint64_t kv_bytes = 4 << 20) {
    InstanceOptions options{.name = name,
                            .role = Role::unified,
                            .fabric = "shm",
                            .threads = 1,
                            .kv_bytes = kv_bytes,
                            .slab_bytes = 64 << 10,
                            .berths = 2,
                            .berth_bytes = std::uint64_t{10} << 20,
                            .supervisor = engine_->address(),
                            .shared_key = shared_key_};
    options.limits.chunk_tokens = 64;
    options.limits.max_step_tokens = 128;
    adjust(options);
    auto instance = Instance::create(options, open_fake_image, make_fake_runtime);
    ASSERT_TRUE(instance) << instance.error().message;
    Running& running = running_[name];
    running.instance = *std::move(instance);
    running.thread = std::thread([worker = running.instance.get()] { worker->run(); });
    const auto hello = wait<InstanceHello>(name, [](const auto&) { return true; });
    ASSERT_TRUE(hello);
    running.hello = *hello;
    {
      const std::lock_guard lock(mutex_);
      running.address = addresses_[name];
    }
    order(name, Welcome{.host_kv = host_.name()});
  }
  // As abrupt as it gets inside of one process.
  void end(const std::string& name) {
    Running& running = running_[name];
    running.instance->stop();
    running.thread.join();
    running_.erase(name);
  }

  template <class M>
  void order(const std::string& name, const M& message) {
    const Status sent =
        channel_->send(running_.at(name).address, static_cast<std::uint8_t>(M::kType), serialize(message));
    ASSERT_TRUE(sent) << sent.error().message;
  }

  // The first report that fits, which is taken out.
  template <class M, class F>
  std::optional<M> wait(const std::string& name, F&& fits, Nanos limit = kOrderLimit) {
    const TimePoint deadline = monotonic_now() + limit;
    std::unique_lock lock(mutex_);
    while (true) {
      for (auto each = news_.begin(); each != news_.end(); ++each) {
        if (each->instance != name || each->type != M::kType) continue;
        auto message = parse<M>(each->payload);
        if (!message || !fits(*message)) continue;
        news_.erase(each);
        return *std::move(message);
      }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) break;
    }
    return std::nullopt;
  }
  template <class M>
  M expect_of(const std::string& name, const Ticket& ticket) {
    auto message = wait<M>(name, [&ticket](const M& each) { return each.ticket == ticket; });
    EXPECT_TRUE(message) << "no report of type " << static_cast<int>(M::kType) << " from " << name;
    return message ? *std::move(message) : M{};
  }
  std::optional<News> next_news(Nanos limit) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, limit, [this] { return !news_.empty(); });
    if (news_.empty()) return std::nullopt;
    News first = std::move(news_.front());
    news_.pop_front();
    return first;
  }

  // --- Models ---
  ModelId add_model(const FakeModel& fake) {
    fakes_.push_back(fake);
    images_.push_back(fake_shared_image(fake));
    return static_cast<ModelId>(fakes_.size() - 1);
  }
  Loaded load(const std::string& name, ModelId model, ModelId evict = schedule::kNoModel) {
    const std::uint64_t serial = next_serial_++;
    if (evict != schedule::kNoModel) order(name, EvictModel{.model = evict});
    order(name, LoadModel{.serial = serial, .model = model, .image = images_[model].name()});
    const auto loaded = wait<Loaded>(name, [serial](const Loaded& each) { return each.serial == serial; });
    EXPECT_TRUE(loaded);
    return loaded.value_or(Loaded{});
  }

  // --- Requests ---
  std::vector<std::int32_t> random_prompt(std::size_t length) {
    std::vector<std::int32_t> tokens(length);
    for (auto& token : tokens) token = static_cast<std::int32_t>(random_() % (kFakeVocab - 1)) + 1;
    return tokens;
  }
  Asked ask(ModelId model, std::size_t length, std::uint32_t count) {
    return {.ticket = {next_id_++, 1}, .model = model, .prompt = random_prompt(length), .count = count};
  }
  void introduce(const std::string& name, const Asked& asked) {
    order(name, Introduce{.ticket = asked.ticket,
                          .model = asked.model,
                          .shape = fake_shape(fakes_[asked.model]),
                          .prompt = asked.prompt,
                          .output = asked.got,
                          .sampling = {.temperature = 0},
                          .max_tokens = asked.count,
                          .end_tokens = {0}});
  }
  std::uint32_t kv_tokens(const Asked& asked) const {
    return static_cast<std::uint32_t>(asked.prompt.size() + asked.got.size()) - 1;
  }
  // Tokens of a job until it has ended.
  JobEnded finish_job(const std::string& name, std::uint64_t job, std::vector<Asked*> asked) {
    while (true) {
      const auto ended = wait<JobEnded>(
          name, [job](const auto& each) { return each.job == job; }, std::chrono::milliseconds(1));
      // Everything before the end has come by then.
      while (auto tokens = wait<Tokens>(
                 name, [job](const auto& each) { return each.job == job; }, Nanos(0))) {
        take(*tokens, asked);
      }
      if (ended) return *ended;
      if (monotonic_now() > job_limit_) {
        ADD_FAILURE() << "job " << job << " does not end";
        return {};
      }
    }
  }
  static void take(const Tokens& tokens, const std::vector<Asked*>& asked) {
    for (const auto& entry : tokens.entries) {
      for (Asked* each : asked) {
        if (each->ticket != entry.ticket) continue;
        for (const auto& token : entry.tokens) each->got.push_back(token.token);
        each->outcome = entry.outcome;
      }
    }
  }
  JobEnded prefill(const std::string& name, std::vector<RunPrefill::Prompt> prompts,
                   const std::vector<Asked*>& asked) {
    const std::uint64_t job = next_serial_++;
    order(name, RunPrefill{.job = job, .model = asked.front()->model, .prompts = std::move(prompts)});
    job_limit_ = monotonic_now() + kOrderLimit;
    return finish_job(name, job, asked);
  }
  JobEnded prefill_stay(const std::string& name, const std::vector<Asked*>& asked) {
    std::vector<RunPrefill::Prompt> prompts;
    for (const Asked* each : asked) {
      introduce(name, *each);
      prompts.push_back({.ticket = each->ticket});
    }
    return prefill(name, std::move(prompts), asked);
  }
  JobEnded decode(const std::string& name, const std::vector<Asked*>& asked, Nanos limit,
                  const std::vector<std::int32_t>& news = {}) {
    const std::uint64_t job = next_serial_++;
    RunDecode run{.job = job, .model = asked.front()->model, .limit = limit};
    for (const Asked* each : asked) run.rows.push_back({.ticket = each->ticket, .news = news});
    order(name, run);
    job_limit_ = monotonic_now() + kOrderLimit;
    return finish_job(name, job, asked);
  }
  void check(const Asked& asked) {
    EXPECT_EQ(asked.outcome, RowOutcome::length);
    EXPECT_EQ(asked.got, fake_tokens(asked.prompt, asked.count, fakes_[asked.model]))
        << "request " << asked.ticket.id << " of " << asked.prompt.size() << " tokens";
  }
  std::vector<BlockId> host_blocks(ModelId model, std::uint32_t tokens) {
    const std::size_t bytes = fake_shape(fakes_[model]).block_bytes();
    const auto units = static_cast<std::uint32_t>((bytes + kBlockUnit - 1) / kBlockUnit);
    std::vector<BlockId> blocks(model::KvLayout::blocks_for(tokens));
    for (BlockId& block : blocks) {
      block = next_host_;
      next_host_ += units;
    }
    EXPECT_LE(block_offset(next_host_), kHostBytes);
    return blocks;
  }

  static double number(const Stats& stats, const std::string& name) {
    for (const auto& sample : stats.samples) {
      if (sample.name == name) return sample.value;
    }
    ADD_FAILURE() << "no number " << name;
    return -1;
  }
  // Has it forget what it keeps of prompts, and waits until it says that it holds nothing.
  void expect_nothing_held(const std::string& name) {
    const TimePoint deadline = monotonic_now() + kOrderLimit;
    double blocks = -1;
    double requests = -1;
    double counters = -1;
    double slabs = -1;
    for (ModelId model = 0; model < fakes_.size(); ++model) order(name, EvictModel{.model = model});
    while (monotonic_now() < deadline) {
      std::unique_lock lock(mutex_);
      const std::uint64_t seen = stats_seen_[name];
      lock.unlock();
      order(name, Release{.ticket = {UINT64_MAX, 0}});  // so that there is news to report
      lock.lock();
      changed_.wait_for(lock, kOrderLimit, [&] { return stats_seen_[name] > seen; });
      const Stats& stats = stats_[name];
      blocks = number(stats, "kv_blocks_used");
      requests = number(stats, "requests_held");
      counters = number(stats, "transfer_counters_used") + number(stats, "handovers_pending");
      slabs = number(stats, "kv_slabs") - number(stats, "kv_slabs_free");
      if (blocks + requests + counters + slabs == 0) return;
    }
    FAIL() << name << " holds " << blocks << " blocks in " << slabs << " slabs, " << requests << " requests, "
           << counters << " counters and hand-overs";
  }
  void expect_nothing_held() {
    for (const auto& [name, running] : running_) expect_nothing_held(name);
  }

  const std::string shared_key_ = make_shared_key().value();
  std::mt19937 random_{7};
  std::unique_ptr<TransferEngine> engine_;
  std::shared_ptr<Channel> channel_;
  SharedMemory host_;
  std::vector<FakeModel> fakes_;
  std::vector<SharedMemory> images_;
  std::map<std::string, Running> running_;
  std::uint64_t next_serial_ = 1;
  std::uint64_t next_id_ = 1;
  BlockId next_host_ = 0;
  TimePoint job_limit_{};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<PeerKey, std::string> names_;
  std::map<std::string, PeerAddress> addresses_;
  std::map<std::string, InstanceHello> hellos_;
  std::map<std::string, Stats> stats_;
  std::map<std::string, std::uint64_t> stats_seen_;
  std::deque<News> news_;
};

}  // namespace switchyard::pool
