#include "pool/berths.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"

namespace switchyard::pool {
namespace {

// Between two looks at whether the load was called off.
constexpr std::size_t kChunkBytes = std::size_t{4} << 20;
// Berths begin on pages of any machine.
constexpr std::uint64_t kBerthAlignment = 64 << 10;
constexpr std::uint32_t kMaxBerths = 256;

}  // namespace

Result<std::unique_ptr<Berths>> Berths::create(BerthParts parts) {
  if (parts.berths == 0 || parts.berths > kMaxBerths || parts.berth_bytes == 0 ||
      parts.berth_bytes > (std::uint64_t{1} << 46)) {
    return fail(ErrorCode::invalid, "{} berths of {} bytes make no weights area; from 1 to {} are possible",
                parts.berths, parts.berth_bytes, kMaxBerths);
  }
  auto berths = std::unique_ptr<Berths>(new Berths(std::move(parts)));
  const BerthParts& own = berths->parts_;
  const std::uint64_t stride = (own.berth_bytes + kBerthAlignment - 1) / kBerthAlignment * kBerthAlignment;
  auto arena = Arena::create(stride * own.berths);
  if (!arena) return fail_at("taking the weights area", arena.error());
  berths->arena_ = *std::move(arena);
  berths->berth_bytes_ = own.berth_bytes;
  berths->berths_.resize(own.berths);
  for (std::uint32_t i = 0; i < own.berths; ++i) {
    berths->berths_[i].memory = berths->arena_.span().subspan(i * stride, own.berth_bytes);
  }
  berths->thread_ = std::thread([self = berths.get()] { self->run(); });
  return berths;
}

Berths::~Berths() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

model::Runtime* Berths::runtime(ModelId model) const {
  for (const Berth& berth : berths_) {
    if (berth.model == model) return berth.runtime.get();
  }
  return nullptr;
}

void Berths::load(const LoadModel& order, Done done) {
  const auto refuse = [&](const Error& why) {
    ++failed_loads_;
    done({.serial = order.serial, .model = order.model, .error = why});
  };
  if (load_) {
    return refuse({ErrorCode::exhausted,
                   fmt::format("model {} is being loaded here; one at a time", load_->order.model)});
  }
  if (runtime(order.model) != nullptr) {
    return done({.serial = order.serial, .model = order.model, .ready = true});
  }
  const auto berth = std::find_if(berths_.begin(), berths_.end(),
                                  [](const Berth& each) { return each.model == schedule::kNoModel; });
  if (berth == berths_.end()) {
    return refuse({ErrorCode::exhausted, fmt::format("all {} berths are taken and none was given up for "
                                                     "model {}",
                                                     berths_.size(), order.model)});
  }
  berth->model = order.model;
  load_.emplace(Load{
      .order = order, .berth = static_cast<std::size_t>(berth - berths_.begin()), .done = std::move(done)});
  {
    const std::lock_guard lock(mutex_);
    task_ = Task{.image = order.image, .berth = berth->memory, .called_off = load_->called_off};
  }
  wake_.notify_one();
}

void Berths::evict(ModelId model) {
  if (loading(model)) {
    load_->called_off->store(true);  // the berth is free when the thread has let go of it
    return;
  }
  for (Berth& berth : berths_) {
    if (berth.model != model) continue;
    berth.runtime.reset();
    berth.model = schedule::kNoModel;
  }
}

void Berths::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || task_; });
    if (stopping_) return;
    const Task task = *std::exchange(task_, std::nullopt);
    lock.unlock();
    auto result = std::make_shared<Result<Copied>>(copy(task.image, task.berth, *task.called_off));
    parts_.post([this, result] { copied(std::move(*result)); });
    lock.lock();
  }
}

Result<Berths::Copied> Berths::copy(const SharedMemoryName& name, std::span<std::byte> berth,
                                    const std::atomic<bool>& called_off) {
  const TimePoint started = monotonic_now();
  auto image = mappings_.open(name);
  if (!image) return pass(image.error());
  const auto source = (*image)->bytes();
  if (source.size() > berth.size()) {
    return fail(ErrorCode::out_of_range,
                "its weights take {} bytes and a berth has {}; give berths more memory", source.size(),
                berth.size());
  }
  for (std::size_t done = 0; done < source.size(); done += kChunkBytes) {
    if (stopping_ || called_off) return fail(ErrorCode::cancelled, "the load was called off");
    std::memcpy(berth.data() + done, source.data() + done, std::min(kChunkBytes, source.size() - done));
  }
  // The cache holds an image until its load has ended, or this process was given up.
  if (!mappings_.still_there(name))
    return fail(ErrorCode::cancelled, "the model cache let the image go while it was being copied");
  return Copied{.image = (*image)->placed_at(berth.first(source.size())),
                .bytes = source.size(),
                .took = monotonic_now() - started};
}

void Berths::copied(Result<Copied> result) {
  Berth& berth = berths_[load_->berth];
  const auto end_badly = [&](const Error& why) {
    berth.model = schedule::kNoModel;
    end_load(pass(why), 0, {});
  };
  if (load_->called_off->load()) return end_badly({ErrorCode::cancelled, "the load was called off"});
  if (!result) return end_badly(result.error());
  const TimePoint made = monotonic_now();
  // On the loop, where no runtime that shares the workspace is stepping.
  auto runtime = parts_.make_runtime(result->image, parts_.kv_memory, parts_.runtime, parts_.workspace);
  if (!runtime) return end_badly(runtime.error());
  berth.runtime = *std::move(runtime);
  // Without what the loop had to do in between: a load may end while a long step is computed.
  end_load({}, result->bytes, result->took + (monotonic_now() - made));
}

void Berths::end_load(const Status& status, std::uint64_t bytes, Nanos took) {
  const Load load = *std::exchange(load_, std::nullopt);
  Loaded loaded{.serial = load.order.serial,
                .model = load.order.model,
                .ready = status.has_value(),
                .bytes = bytes,
                .took = took};
  if (status) {
    ++loads_;
    loaded_bytes_ += bytes;
    load_time_ += loaded.took;
  } else {
    ++failed_loads_;
    loaded.error = status.error();
    log::warn("model {} was not loaded: {}", load.order.model, status.error().message);
  }
  load.done(loaded);
}

void Berths::add_stats(Stats& stats) const {
  const auto used = std::count_if(berths_.begin(), berths_.end(),
                                  [](const Berth& berth) { return berth.model != schedule::kNoModel; });
  stats.gauge("berths", "Models that the weights area holds at a time", static_cast<double>(berths_.size()));
  stats.gauge("berths_used", "Models that are in the weights area", static_cast<double>(used));
  stats.gauge("berth_bytes", "Memory of a berth", static_cast<double>(berth_bytes_));
  stats.count("model_loads_total", "Models copied into a berth", static_cast<double>(loads_));
  stats.count("model_loads_failed_total", "Loads that failed or were called off",
              static_cast<double>(failed_loads_));
  stats.count("model_load_bytes_total", "Bytes copied into berths", static_cast<double>(loaded_bytes_));
  stats.count("model_load_seconds_total", "Time that loads took", to_seconds(load_time_));
}

}  // namespace switchyard::pool
