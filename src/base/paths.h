// Where the program keeps what it makes.
#pragma once

#include <filesystem>

namespace switchyard {

// $XDG_CACHE_HOME/switchyard, else ~/.cache/switchyard. Not created here.
std::filesystem::path cache_directory();

}  // namespace switchyard
