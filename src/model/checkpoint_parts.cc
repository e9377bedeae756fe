#include "model/checkpoint_parts.h"

#include <algorithm>
#include <array>
#include <fstream>

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

bool starts_as_gguf(const fs::path& path) {
  std::array<char, 4> magic{};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic.data(), magic.size()) && std::string_view(magic.data(), magic.size()) == "GGUF";
}

Result<CheckpointParts> read_directory(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path / "config.json", error)) return read_safetensors(path);
  const auto files = files_with_extension(path, ".gguf");
  if (!files) return pass(files.error());
  if (files->size() == 1) return read_gguf(files->front());
  if (files->empty()) {
    return fail(ErrorCode::not_found, "{} holds no checkpoint: neither config.json nor a .gguf file",
                path.string());
  }
  return fail(ErrorCode::invalid, "{} holds {} GGUF files; name one, such as {}", path.string(),
              files->size(), files->front().string());
}

}  // namespace

Result<std::vector<fs::path>> files_with_extension(const fs::path& directory, std::string_view extension) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().extension() == extension) files.push_back(entry->path());
  }
  if (error) return fail(ErrorCode::io, "cannot list {}: {}", directory.string(), error.message());
  std::ranges::sort(files);
  return files;
}

Result<CheckpointParts> read_checkpoint(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) return fail(ErrorCode::not_found, "there is no checkpoint at {}", path.string());
  if (fs::is_directory(status)) return read_directory(path);
  // By its first bytes: caches keep files under names without a suffix.
  if (fs::is_regular_file(status) && starts_as_gguf(path)) return read_gguf(path);
  if (path.extension() == ".safetensors") {
    return read_safetensors(path.has_parent_path() ? path.parent_path() : fs::path("."), {path});
  }
  if (path.extension() == ".gguf") return read_gguf(path);  // says what is wrong with it
  return fail(ErrorCode::unsupported, "{} is neither a GGUF file nor a .safetensors file", path.string());
}

}  // namespace switchyard::model
