// The served models with what the gateway keeps for each.
//
// Made once at start; immutable then, any thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/api_error.h"
#include "gateway/metrics.h"
#include "gateway/served_text.h"
#include "pool/generator.h"

namespace switchyard::gateway {

struct ModelEntry {
  pool::ServedModel served;
  std::shared_ptr<const ServedText> text;
  ModelMetrics metrics;
};

class ModelTable {
 public:
  // Errors: those of the factory, with the model's name.
  static Result<ModelTable> create(const pool::Generator& generator, const ServedTextFactory& factory,
                                   Metrics& metrics);

  // Errors: 404 model_not_found, naming the models there are.
  ApiResult<const ModelEntry*> find(std::string_view id) const;
  const std::map<std::string, ModelEntry, std::less<>>& all() const { return models_; }

 private:
  std::map<std::string, ModelEntry, std::less<>> models_;
};

}  // namespace switchyard::gateway
