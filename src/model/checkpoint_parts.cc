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

struct Place {
  bool is_gguf = false;
  fs::path path;                 // of the GGUF file, or of the directory with config.json
  std::vector<fs::path> shards;  // as read_safetensors takes them
};

Result<Place> locate_in_directory(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path / "config.json", error)) return Place{.path = path, .shards = {}};
  const auto files = files_with_extension(path, ".gguf");
  if (!files) return pass(files.error());
  if (files->size() == 1) return Place{.is_gguf = true, .path = files->front(), .shards = {}};
  if (files->empty()) {
    return fail(ErrorCode::not_found, "{} holds no checkpoint: neither config.json nor a .gguf file",
                path.string());
  }
  return fail(ErrorCode::invalid, "{} holds {} GGUF files; name one, such as {}", path.string(),
              files->size(), files->front().string());
}

Result<Place> locate(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) return fail(ErrorCode::not_found, "there is no checkpoint at {}", path.string());
  if (fs::is_directory(status)) return locate_in_directory(path);
  // By its first bytes: caches keep files under names without a suffix. One that is named so all the same is
  // read as such, so that the reader says what is wrong with it.
  if (fs::is_regular_file(status) && (starts_as_gguf(path) || path.extension() == ".gguf")) {
    return Place{.is_gguf = true, .path = path, .shards = {}};
  }
  if (path.extension() == ".safetensors") {
    return Place{.path = path.has_parent_path() ? path.parent_path() : fs::path("."), .shards = {path}};
  }
  return fail(ErrorCode::unsupported, "{} is neither a GGUF file nor a .safetensors file", path.string());
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
  const auto place = locate(path);
  if (!place) return pass(place.error());
  return place->is_gguf ? read_gguf(place->path) : read_safetensors(place->path, place->shards);
}

Result<std::vector<fs::path>> checkpoint_files(const fs::path& path) {
  const auto place = locate(path);
  if (!place) return pass(place.error());
  if (place->is_gguf) return std::vector<fs::path>{place->path};
  return safetensors_files(place->path, place->shards);
}

}  // namespace switchyard::model
