// A Catalogue over the fake generator: what is added is "preparing" until a test says otherwise.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "gateway/fake_generator.h"
#include "pool/catalogue.h"

namespace switchyard::gateway::testing {

class FakeCatalogue final : public pool::Catalogue {
 public:
  explicit FakeCatalogue(FakeGenerator& generator);

  Status add_model(const pool::ModelSettings& settings) override;
  Status remove_model(const std::string& id) override;
  Status load_model(const std::string& id) override;
  // One can be pinned.
  Status pin_model(const std::string& id, bool pinned) override;
  Result<pool::CatalogueChange> replace(const std::vector<pool::ModelSettings>& models) override;
  Status fits(const model::ModelConfig&, std::uint64_t) const override { return {}; }
  std::vector<pool::ModelSettings> settings() const override;

  std::vector<std::string> loaded() const;

 private:
  FakeGenerator& generator_;
  mutable std::mutex mutex_;
  std::vector<pool::ModelSettings> settings_;
  std::vector<std::string> loaded_;
};

}  // namespace switchyard::gateway::testing
