#include "gateway/model_table.h"

#include <algorithm>

#include "base/log.h"

namespace switchyard::gateway {
namespace {

using pool::ModelState;

// When nothing better is known.
constexpr Nanos kPreparationRetry = std::chrono::seconds(2);
constexpr Nanos kFailureRetry = std::chrono::seconds(30);
constexpr std::size_t kMostDetail = 1000;  // bytes of a reason that clients are told

const ModelEntry* find_entry(const ModelTable* table, const pool::ServedModel& model) {
  if (table == nullptr) return nullptr;
  for (const auto& entry : table->all()) {
    if (entry->served.id == model.id && entry->served.image == model.image &&
        entry->served.created == model.created) {
      return entry.get();
    }
  }
  return nullptr;
}

void make_text(ModelEntry& entry, const ServedTextFactory& factory) {
  auto text = factory(entry.served);
  if (text) {
    entry.text = *std::move(text);
    return;
  }
  log::error("gateway: model '{}' cannot be served: {}", entry.served.id, text.error().message);
  entry.text_failed = true;
  entry.served.detail = text.error().message;
}

ApiError unusable(const pool::ServedModel& model) {
  const bool failed = model.state == ModelState::failed;
  std::string detail = model.detail.substr(0, kMostDetail);
  if (!detail.empty()) detail = ": " + detail;
  ApiError error;
  error.status = 503;
  error.type = "server_error";
  error.param = "model";
  error.code = failed ? "model_failed" : "model_not_ready";
  error.message = failed ? fmt::format("The model '{}' cannot be used now{}.", model.id, detail)
                         : fmt::format("The model '{}' is being prepared{}. Try again.", model.id, detail);
  const Nanos usual = failed ? kFailureRetry : kPreparationRetry;
  error.retry_after = retry_seconds(model.retry_after > Nanos::zero() ? model.retry_after : usual);
  return error;
}

}  // namespace

int retry_seconds(Nanos wait) {
  constexpr Nanos kMost = std::chrono::hours(24);
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(std::min(wait, kMost)).count();
  return static_cast<int>(std::max<std::int64_t>(seconds, 1));
}

std::shared_ptr<const ModelTable> ModelTable::build(const pool::Generator& generator,
                                                    const ServedTextFactory& factory, Metrics& metrics,
                                                    const ModelTable* before) {
  auto table = std::make_shared<ModelTable>();
  table->version_ = generator.models_version();  // first: what changes after it is seen the next time
  for (pool::ServedModel& model : generator.models()) {
    auto entry = std::make_shared<ModelEntry>();
    entry->served = std::move(model);
    const ModelEntry* known = find_entry(before, entry->served);
    if (known != nullptr) {
      entry->text = known->text;
      entry->text_failed = known->text_failed;
      if (known->text_failed) entry->served.detail = known->served.detail;
    }
    if (entry->served.state == ModelState::ready && !entry->text && !entry->text_failed)
      make_text(*entry, factory);
    if (entry->served.state == ModelState::ready && entry->text_failed)
      entry->served.state = ModelState::failed;
    if (entry->text) entry->metrics = metrics.for_model(entry->served.id);
    table->models_.push_back(entry);
    // A model that comes again while its former self still ends stands there twice.
    if (entry->served.state != ModelState::removing)
      table->by_id_.insert_or_assign(entry->served.id, std::move(entry));
  }
  return table;
}

ApiResult<std::shared_ptr<const ModelEntry>> ModelTable::find(std::string_view id) const {
  const auto found = by_id_.find(id);
  if (found != by_id_.end()) {
    if (found->second->served.state == ModelState::ready) return found->second;
    return tl::unexpected(unusable(found->second->served));
  }
  constexpr std::size_t kMostNames = 10;
  std::string names;
  std::size_t count = 0;
  for (const auto& [name, entry] : by_id_) {
    if (count++ == kMostNames) {
      names += ", …";
      break;
    }
    names += (names.empty() ? "'" : ", '") + name + "'";
  }
  ApiError error;
  error.status = 404;
  error.message = fmt::format("The model '{}' does not exist. This server has: {}.", id.substr(0, 200),
                              names.empty() ? "none" : names);
  error.param = "model";
  error.code = "model_not_found";
  return tl::unexpected(std::move(error));
}

ModelDirectory::ModelDirectory(const pool::Generator& generator, ServedTextFactory factory, Metrics& metrics)
    : generator_(generator),
      factory_(std::move(factory)),
      metrics_(metrics),
      table_(ModelTable::build(generator_, factory_, metrics_, nullptr)) {}

std::shared_ptr<const ModelTable> ModelDirectory::current() const {
  const auto version = generator_.models_version();
  const std::lock_guard lock(mutex_);
  return table_->version() == version ? table_ : nullptr;
}

std::shared_ptr<const ModelTable> ModelDirectory::fresh() {
  const std::lock_guard one_at_a_time(building_);
  if (auto table = current()) return table;
  std::shared_ptr<const ModelTable> before;
  {
    const std::lock_guard lock(mutex_);
    before = table_;
  }
  auto table = ModelTable::build(generator_, factory_, metrics_, before.get());
  const std::lock_guard lock(mutex_);
  table_ = table;
  return table;
}

std::vector<pool::ServedModel> ModelDirectory::models() {
  const auto table = fresh();
  auto models = generator_.models();
  for (pool::ServedModel& model : models) {
    const ModelEntry* entry = find_entry(table.get(), model);
    if (entry == nullptr || !entry->text_failed || model.state != ModelState::ready) continue;
    model.state = ModelState::failed;
    model.detail = entry->served.detail;
  }
  return models;
}

}  // namespace switchyard::gateway
