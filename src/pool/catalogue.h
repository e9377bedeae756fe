// Which models a pool serves and how, and how that is changed while it runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "schedule/types.h"
#include "switchyard/result.h"

namespace switchyard::pool {

struct ModelSettings {
  std::string id;              // in the API
  std::filesystem::path path;  // checkpoint: file or directory
  schedule::Targets targets;
  double weight = 1;              // worth of its tokens, and share of a full pool, relative to others
  bool pinned = false;            // keeps its berths
  std::uint32_t context = 0;      // longest prompt + output; 0: the model's, as far as KV memory allows
  std::uint32_t max_waiting = 0;  // requests without a first token; 0: no limit
  schedule::RateLimit rate;

  bool operator==(const ModelSettings&) const = default;
};

inline constexpr std::size_t kMaxModels = 1024;
inline constexpr std::size_t kMaxModelIdBytes = 200;
inline constexpr std::size_t kMaxPathBytes = 4096;

// Errors: invalid, naming what cannot be (an empty or absurd id, a target of zero, ...).
Status validate(const ModelSettings& settings);
// Whether so many pinned models leave a berth of an instance to the others.
constexpr bool leaves_a_berth(std::uint64_t pinned, std::uint64_t berths) {
  return pinned == 0 || pinned < berths;
}
// The same of everything but id and path.
Status validate_defaults(const ModelSettings& settings);

// Settings by name, for configuration files and admin calls: everything but id and path.
std::span<const std::string_view> setting_names();
// "ttft", "10s"; "rate.per_second", "2.5". Errors: invalid (what the text must be), not_found (no such name).
Status set(ModelSettings& settings, std::string_view name, std::string_view text);
// Call after the last set(): a rate without a burst gets one of a second's requests.
void complete(ModelSettings& settings);
// The id of a model that is not named: that of its file without the extension.
std::string default_id(const std::filesystem::path& checkpoint);

struct CatalogueChange {
  std::vector<std::string> added, removed, changed;
};

// Any thread. Nothing here waits for a model: see Generator::models() for what becomes of it.
class Catalogue {
 public:
  virtual ~Catalogue() = default;
  // Begins to prepare it. Errors: invalid, exhausted (the id is taken; too many models).
  virtual Status add_model(const ModelSettings& settings) = 0;
  // New requests are refused from now on; those that were taken end as they would. Errors: not_found.
  virtual Status remove_model(const std::string& id) = 0;
  // Brings it into the cache and into a berth of an instance of each role, as if a request waited for it; a
  // failed one is tried again. Errors: not_found.
  virtual Status load_model(const std::string& id) = 0;
  // Errors: not_found, exhausted (as many are pinned as there are berths, less one).
  virtual Status pin_model(const std::string& id, bool pinned) = 0;
  // Makes the catalogue this one: adds, removes, and changes what differs. A model whose path changed is
  // replaced; its requests end as they would. Errors: invalid (nothing was changed).
  virtual Result<CatalogueChange> replace(const std::vector<ModelSettings>& models) = 0;
  // Whether a model of this shape can be served. Errors: out_of_range (what it does not fit).
  virtual Status fits(const model::ModelConfig& config, std::uint64_t weight_bytes) const = 0;
  virtual std::vector<ModelSettings> settings() const = 0;
};

}  // namespace switchyard::pool
