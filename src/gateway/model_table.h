// The served models with what the gateway keeps for each: as they were at one moment (ModelTable), and as
// they are now (ModelDirectory).
//
// A table is immutable; any thread. Entries are shared by the requests that use them, so that a model may go
// while its last requests end.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/admission_error.h"
#include "gateway/api_error.h"
#include "gateway/metrics.h"
#include "gateway/served_text.h"
#include "pool/catalogue.h"
#include "pool/generator.h"

namespace switchyard::gateway {

struct ModelEntry {
  pool::ServedModel served;                // `failed`, with the reason, when its tokenizer cannot be used
  std::shared_ptr<const ServedText> text;  // null until it is ready
  bool text_failed = false;
  ModelLimits limits;
  TimePoint retry_at{};  // of one that cannot be used now: when the pool said to ask again
  ModelMetrics metrics;
};

// Where tables get what they hold. All of it outlives them.
struct ModelSources {
  const pool::Generator* generator = nullptr;
  const pool::Catalogue* catalogue = nullptr;  // null: limits are not known
  ServedTextFactory text;
  Metrics* metrics = nullptr;
};

class ModelTable {
 public:
  // What is in `before` for the same image is used again: only new models cost something, up to some hundred
  // milliseconds for a large vocabulary. A tokenizer that cannot be used makes its model a failed one.
  static std::shared_ptr<const ModelTable> build(const ModelSources& sources, const ModelTable* before);

  // One that can be used. Errors: 404 model_not_found, naming the models there are; 503 model_not_ready and
  // model_failed, with the reason, and with when to come again unless that is no use.
  ApiResult<std::shared_ptr<const ModelEntry>> find(std::string_view id) const;
  // In the order in which they were added; those that are being removed too.
  const std::vector<std::shared_ptr<const ModelEntry>>& all() const { return models_; }
  std::uint64_t version() const { return version_; }

 private:
  std::uint64_t version_ = 0;
  std::vector<std::shared_ptr<const ModelEntry>> models_;
  std::map<std::string, std::shared_ptr<const ModelEntry>, std::less<>>
      by_id_;  // without those being removed
};

// Any thread; fresh() may take as long as ModelTable::build().
class ModelDirectory {
 public:
  explicit ModelDirectory(ModelSources sources);

  // The newest table there is, if models have not changed since; else nothing. Costs two locks at most.
  std::shared_ptr<const ModelTable> current() const;
  // Made anew if models have changed.
  std::shared_ptr<const ModelTable> fresh();
  // What the pool says of its models at this moment; those whose tokenizer cannot be used are failed ones.
  std::vector<pool::ServedModel> models();

 private:
  const ModelSources sources_;
  std::mutex building_;
  mutable std::mutex mutex_;
  std::shared_ptr<const ModelTable> table_;
};

}  // namespace switchyard::gateway
